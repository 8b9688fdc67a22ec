"""The classes of a trained model beside those of the data: whether they are the same, and learning others."""

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

# Layers with a row for each class, and, of a detector, a row for each of its classes and the background, and four.
_CLASSIFIERS = ("sem_seg_head.predictor", "aux_head.layers.2")
_BOX_CLASSIFIER, _BOX_REGRESSOR = "box_predictor.cls_score", "box_predictor.bbox_pred"
_LISTED = 12
"""Names of classes in a message, at most."""

Rows = list[tuple[int, int]]
"""Pairs of a new row and of the old one that it is taken from."""


@dataclass(frozen=True)
class ClassNames:
    """What a model or a data set takes its classes for.

    Attributes:
        names: by class id.
        objects: class ids of the detector's classes, in their order; empty where there is no detector.
        owner: whose they are, for messages.
    """

    names: Sequence[str]
    objects: Sequence[int]
    owner: str

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> ClassNames:
        """Those that a checkpoint was trained on; it passed `check_metadata`."""
        return cls(content["classes"], content["objects"], "the checkpoint")

    @classmethod
    def from_dataset(cls, name: str, cfg: Any) -> ClassNames:
        """Those of a registered list of images, for a model of this config."""
        metadata = MetadataCatalog.get(name).as_dict() if name in MetadataCatalog else {}
        names = metadata.get("stuff_classes") or default_names(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        objects = cfg.MODEL.DETECTOR.CLASSES if cfg.MODEL.DETECTOR.MODE in ("shared", "alone") else ()
        return cls(list(names), list(objects), name)

    @property
    def named(self) -> bool:
        """Whether somebody gave the names: those of a data set without any were made up."""
        return list(self.names) != default_names(len(self.names))

    def difference(self, other: ClassNames) -> str:
        """The first class that is not the same, in words; "" where all are.

        Where one of both has no names, ids are all there is to compare.
        """
        named = self.named and other.named
        ours, theirs = (list(c.names) if named else default_names(len(c.names)) for c in (self, other))
        kinds = [("class", ours, theirs)]
        if self.objects and other.objects:
            detected = [ours[index] for index in self.objects], [theirs[index] for index in other.objects]
            kinds.append(("the detector's class", *detected))
        for kind, *both in kinds:
            for index, (own, its) in enumerate(zip_longest(*both)):
                if own != its:
                    return f"{kind} {index} is {_said(own)} in {self.owner}, but {_said(its)} in {other.owner}"
        return ""


def _said(name: str | None) -> str:
    return "missing" if name is None else repr(name)


def get_run_classes(cfg: Any) -> ClassNames:
    """Those of a run's lists with masks, which must be the same in all of them.

    Args:
        cfg: complete.

    Raises:
        InputError: they are not.
    """
    lists = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *cfg.TEST.PSEUDO_LABELS)
    known = [ClassNames.from_dataset(name, cfg) for name in lists or ("the config",)]
    own = next((classes for classes in known if classes.named), known[0])
    for other in known:
        check_same_classes(own, other)
    return own


def check_same_classes(own: ClassNames, other: ClassNames) -> None:
    """Check that two lists can be used by one run.

    Raises:
        InputError: they have other classes.
    """
    if difference := own.difference(other):
        raise InputError(f"{other.owner}: {difference}; give lists of data sets with the same classes in one order")


def check_model_classes(model: ClassNames, data: ClassNames, path: str) -> None:
    """Check that a trained model's classes are those of the data.

    Args:
        model: of the checkpoint.
        data: of the run.
        path: of the checkpoint, for the message.

    Raises:
        InputError: they are not.
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
    """The weights of a model of other classes: those of a class are found by its name.

    Args:
        weights: of a model with the `old` classes.
        model: with the `new` classes; its own, random weights are those of classes that `weights` does not have.
        old: classes of `weights`.
        new: classes of `model`.
    """
    rows = _same(old.names, new.names)
    kept = [new.names[index] for index, _ in rows]
    begun = [name for name in new.names if name not in kept]
    logger.warning(
        "MODEL.MATCH_CLASSES: %s keep their weights, %s begin anew",
        *(", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED) or "none" for names in (kept, begun)),
    )
    boxes = _same(*([classes.names[index] for index in classes.objects] for classes in (old, new)))
    background = (len(new.objects), len(old.objects))
    matched = dict(weights)
    for key, own in model.state_dict().items():
        layer = key.rpartition(".")[0]
        if layer in _CLASSIFIERS:
            matched |= _moved(key, weights, own, rows, len(old.names))
        elif layer.endswith(_BOX_CLASSIFIER):
            matched |= _moved(key, weights, own, [*boxes, background], len(old.objects) + 1)
        elif layer.endswith(_BOX_REGRESSOR) and len(own) == 4 * len(new.objects):  # else for all classes at once
            quadruple = [(4 * to + i, 4 * source + i) for to, source in boxes for i in range(4)]
            matched |= _moved(key, weights, own, quadruple, 4 * len(old.objects))
    return matched


def _same(old: Sequence[str], new: Sequence[str]) -> Rows:
    return [(index, old.index(name)) for index, name in enumerate(new) if name in old]


def _moved(key: str, weights: Mapping[str, Tensor], own: Tensor, rows: Rows, count: int) -> dict[str, Tensor]:
    """The new weights under `key`; none if there are no old ones in this shape, which is said where they are loaded."""
    tensor = weights.get(key)
    if tensor is None or tensor.shape != (count, *own.shape[1:]):
        return {}
    result = own.detach().cpu().clone()
    for to, source in rows:
        result[to] = tensor[source]
    return {key: result}
