"""Oracles: hosts that are told the truth about unlabeled images, to measure the room that weights or labels have.

The masks come through a mapper of this project's own, `TruthMapper`, to frameworks that are registered by
`register_oracles` alone. Nothing of the package calls either, so that no training command of it can open such a mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetCatalog
from torch import Tensor
from typing_extensions import override

from wpl_d2.data import TrainBatch, UnlabeledMapper, build_train_loader
from wpl_d2.data.loader import Source, unlabeled_records
from wpl_d2.data.mappers import read_labels
from wpl_d2.data.transforms.geometry import View
from wpl_d2.engine import Trainer
from wpl_d2.frameworks import (
    CPS,
    FRAMEWORK_REGISTRY,
    CorrMatch,
    Framework,
    PC2Seg,
    PrevMatch,
    PseudoSeg,
    SemiVL,
    STPlusPlus,
)
from wpl_d2.frameworks.pseudo_labels import Prediction
from wpl_d2.structures import IGNORE, PseudoLabels
from wpl_d2.utils.errors import InputError

PREFIX = "Oracle"
"""What the name of every oracle begins with, in FRAMEWORK.NAME and so in its checkpoints' config."""


class TruthMapper(UnlabeledMapper):
    """The package's mapper of unlabeled images, with one thing more: `truth` (H, W) int64, the mask in the view.

    It is `IGNORE` in the padding, and everywhere where the image has no mask. All else is drawn as without it.
    """

    @configurable
    def __init__(self, *, num_classes: int, **mapper: Any) -> None:
        """Prepare the mapper.

        Args:
            num_classes: number of semantic classes.
            mapper: the arguments of `UnlabeledMapper`.
        """
        super().__init__(**mapper)
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of `__init__` for a config whose classes `setup_datasets` has filled in."""
        return super().from_config(cfg) | {"num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}

    def sample(self, dataset_dict: dict[str, Any], image: np.ndarray, view: View) -> dict[str, Any]:
        """As in `UnlabeledMapper`, and `truth`; errors are those of `read_labels`."""
        mask = np.full(image.shape[:2], IGNORE, dtype=np.uint8)
        if "sem_seg_file_name" in dataset_dict:
            mask = read_labels(dataset_dict, image.shape[:2], self.num_classes)
        truth = torch.from_numpy(view.transform.apply_segmentation(mask).astype(np.int64))
        return super().sample(dataset_dict, image, view) | {"truth": truth}


class Oracle(Framework):
    """What the two kinds of oracles share; the host comes behind it in the order of the classes."""

    @classmethod
    def check_config(cls, cfg: Any) -> None:
        """See `Framework.check_config`."""
        super().check_config(cfg)
        if cfg.WEIGHTING.ENABLED:
            raise InputError(f"WEIGHTING.ENABLED: {cfg.FRAMEWORK.NAME} takes the place of weights; set it False")

    @override
    def make_pseudo_labels(self, items: list[dict[str, Any]], prediction: Prediction) -> PseudoLabels:
        pseudo = self.mend(super().make_pseudo_labels(items, prediction), self.stack(items, "truth"))
        self.record(items, pseudo)
        return pseudo

    def mend(self, pseudo: PseudoLabels, truth: Tensor) -> PseudoLabels:
        """What the truth changes.

        Args:
            pseudo: the host's.
            truth: (B, H, W) int64, `IGNORE` where it is not known.
        """
        raise NotImplementedError


class OracleWeights(Oracle):
    """Weight 1 where the pseudo-label is the true class, else 0, also where no true class is known."""

    def mend(self, pseudo: PseudoLabels, truth: Tensor) -> PseudoLabels:
        """See the class."""
        return pseudo.replace(weight=((pseudo.labels == truth) & (truth != IGNORE)).float())


class OracleLabels(Oracle):
    """The true class in place of the pseudo-label, and none where it is not known; which pixels train stays the host's.

    That is, confidence and threshold are those of the host.
    """

    def mend(self, pseudo: PseudoLabels, truth: Tensor) -> PseudoLabels:
        """See the class."""
        return pseudo.replace(labels=truth)


def oracles() -> dict[str, tuple[type[Oracle], type[Framework]]]:
    """Both oracles of every semi-supervised host of the package but seven, and the host, by name.

    Names are such as OracleWeightsMeanTeacher and OracleLabelsUniMatch. Of CPS an oracle would mend one student's
    labels alone: the other one is a framework of its own. PC2Seg, PseudoSeg and one loss of CorrMatch learn
    probabilities, which none mends. PrevMatch learns, and SemiVL weighs, labels that are not the student's;
    STPlusPlus's are not made in a step.
    """
    without = (Oracle, CPS, CorrMatch, PC2Seg, PrevMatch, PseudoSeg, SemiVL, STPlusPlus)
    hosts = [
        (name, host) for name, host in FRAMEWORK_REGISTRY if host.semi_supervised and not issubclass(host, without)
    ]
    return {f"{kind.__name__}{name}": (kind, host) for kind in (OracleWeights, OracleLabels) for name, host in hosts}


def register_oracles() -> list[str]:
    """Register `oracles` in this process; doing so again changes nothing.

    Returns:
        their names.
    """
    for name, bases in oracles().items():
        if name not in FRAMEWORK_REGISTRY:
            FRAMEWORK_REGISTRY.register(type(name, bases, {"__doc__": bases[0].__doc__}))
    return list(oracles())


def host_of(name: str) -> str:
    """The host's FRAMEWORK.NAME of an oracle's, or of any other the same."""
    return name.removeprefix(OracleWeights.__name__).removeprefix(OracleLabels.__name__)


def oracle_source(cfg: Any) -> Source:
    """The unlabeled images with their masks.

    Raises:
        InputError: none of them has one.
    """
    known = [record for name in cfg.DATASETS.UNLABELED for record in DatasetCatalog.get(name)]
    keys = ("sem_seg_file_name", "sem_seg_ignore", "sem_seg_source", "sem_seg_error")
    masks = [{key: record[key] for key in keys if key in record} for record in known]
    if not any("sem_seg_file_name" in mask for mask in masks):
        raise InputError(
            f"DATASETS.UNLABELED: no image of {', '.join(cfg.DATASETS.UNLABELED)} has a mask, which an oracle needs; "
            "leave the oracle's rows out, or add masks"
        )
    records = [record | mask for record, mask in zip(unlabeled_records(cfg), masks, strict=True)]
    return records, TruthMapper(cfg)


class OracleTrainer(Trainer):
    """Trains an oracle: the package's trainer, fed by `oracle_source`."""

    def build_train_loader(self, partner_indices: deque[list[int]]) -> Iterator[TrainBatch]:
        """As in `Trainer`, with the truth about unlabeled images."""
        return build_train_loader(self.cfg, self.start_iter, partner_indices, oracle_source(self.cfg))
