"""The classes of a model and of the data: comparing them, and carrying weights over to other classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from ..data.datasets.folder import default_names
from ..utils.errors import InputError

logger = logging.getLogger(__name__)

# Layers with one row per class; of a detector, one per class and background, and four per class.
_CLASSIFIERS = ("sem_seg_head.predictor", "aux_head.layers.2")
_BOX_CLASSIFIER, _BOX_REGRESSOR = "box_predictor.cls_score", "box_predictor.bbox_pred"
_LISTED = 12
"""Most class names in a message."""

Rows = list[tuple[int, int]]
"""Pairs of a new row and the old row that it is copied from."""


@dataclass(frozen=True)
class ClassNames:
    """The classes of a model or of a data set.

    Attributes:
        names: by class id.
        objects: class ids of the detector's classes, in their order; empty without a detector.
        owner: the model or data set, for messages.
    """

    names: Sequence[str]
    objects: Sequence[int]
    owner: str

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> ClassNames:
        """Read the classes of a checkpoint, or of other metadata that passed `check_metadata`."""
        return cls(content["classes"], content["objects"], "the checkpoint")

    @classmethod
    def from_dataset(cls, name: str, cfg: Any) -> ClassNames:
        """Read the classes of a registered data set, with the objects of MODEL.DETECTOR."""
        metadata = MetadataCatalog.get(name).as_dict() if name in MetadataCatalog else {}
        names = metadata.get("stuff_classes") or default_names(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        objects = cfg.MODEL.DETECTOR.CLASSES if cfg.MODEL.DETECTOR.MODE in ("shared", "alone") else ()
        return cls(list(names), list(objects), name)

    @property
    def has_names(self) -> bool:
        """Whether the names were given by a user, instead of the default names."""
        return list(self.names) != default_names(len(self.names))

    def difference(self, other: ClassNames) -> str:
        """Describe the first class that differs, or return ""; if either has default names, only numbers count."""
        named = self.has_names and other.has_names
        ours, theirs = (list(c.names) if named else default_names(len(c.names)) for c in (self, other))
        kinds = [("class", ours, theirs)]
        if self.objects and other.objects:
            detected = [ours[index] for index in self.objects], [theirs[index] for index in other.objects]
            kinds.append(("the detector's class", *detected))
        for kind, *both in kinds:
            for index, (own, its) in enumerate(zip_longest(*both)):
                if own != its:
                    return f"{kind} {index} is {_quote(own)} in {self.owner}, but {_quote(its)} in {other.owner}"
        return ""


def _quote(name: str | None) -> str:
    return "missing" if name is None else repr(name)


def get_run_classes(cfg: Any) -> ClassNames:
    """Get the classes of a run, which must be the same in all of its data sets with masks.

    Args:
        cfg: a complete config.

    Raises:
        InputError: the data sets have different classes.
    """
    lists = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *cfg.TEST.PSEUDO_LABELS)
    known = [ClassNames.from_dataset(name, cfg) for name in lists or ("the config",)]
    own = next((classes for classes in known if classes.has_names), known[0])
    for other in known:
        check_same_classes(own, other)
    return own


def check_same_classes(own: ClassNames, other: ClassNames) -> None:
    """Check that two data sets have the same classes, so that one run can use both.

    Raises:
        InputError: they differ.
    """
    if difference := own.difference(other):
        raise InputError(f"{other.owner}: {difference}; give lists of data sets with the same classes in one order")


def check_model_classes(model: ClassNames, data: ClassNames, path: str) -> None:
    """Check that a trained model has the classes of the data.

    Args:
        model: the checkpoint's classes.
        data: the run's classes.
        path: of the checkpoint, for the message.

    Raises:
        InputError: they differ.
    """
    difference = model.difference(data)
    if not difference:
        return
    if len(model.names) != len(data.names):
        difference = f"the checkpoint has {len(model.names)} classes, the config {len(data.names)}: {difference}"
    names = ", ".join(model.names[:_LISTED]) + ", ..." * (len(model.names) > _LISTED)
    raise InputError(
        f"{path}: {difference}; use a data set with its classes in its order ({names}), or train from it with "
        "MODEL.MATCH_CLASSES True"
    )


def match_classes(
    weights: Mapping[str, Tensor], model: nn.Module, old: ClassNames, new: ClassNames
) -> dict[str, Tensor]:
    """Rearrange the weights of a model with other classes, matching classes by name.

    Args:
        weights: of a model with the `old` classes.
        model: with the `new` classes; classes that `weights` lacks take its own, random weights.
        old: classes of `weights`.
        new: classes of `model`.
    """
    rows = _match_names(old.names, new.names)
    kept = [new.names[index] for index, _ in rows]
    added = [name for name in new.names if name not in kept]
    logger.warning(
        "MODEL.MATCH_CLASSES: %s keep their weights, %s begin anew",
        *(", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED) or "none" for names in (kept, added)),
    )
    boxes = _match_names(*([classes.names[index] for index in classes.objects] for classes in (old, new)))
    background = (len(new.objects), len(old.objects))
    matched = dict(weights)
    for key, own in model.state_dict().items():
        layer = key.rpartition(".")[0]
        if layer in _CLASSIFIERS:
            matched |= _copy_rows(key, weights, own, rows, len(old.names))
        elif layer.endswith(_BOX_CLASSIFIER):
            matched |= _copy_rows(key, weights, own, [*boxes, background], len(old.objects) + 1)
        elif layer.endswith(_BOX_REGRESSOR) and len(own) == 4 * len(new.objects):  # otherwise it is class-agnostic
            quadruple = [(4 * to + i, 4 * source + i) for to, source in boxes for i in range(4)]
            matched |= _copy_rows(key, weights, own, quadruple, 4 * len(old.objects))
    return matched


def _match_names(old: Sequence[str], new: Sequence[str]) -> Rows:
    return [(index, old.index(name)) for index, name in enumerate(new) if name in old]


def _copy_rows(key: str, weights: Mapping[str, Tensor], own: Tensor, rows: Rows, count: int) -> dict[str, Tensor]:
    """The new weights under `key`, or nothing if the old ones have another shape, which loading them reports."""
    tensor = weights.get(key)
    if tensor is None or tensor.shape != (count, *own.shape[1:]):
        return {}
    result = own.detach().cpu().clone()
    for to, source in rows:
        result[to] = tensor[source]
    return {key: result}
