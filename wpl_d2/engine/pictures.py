"""Pictures of the training in TensorBoard."""

from __future__ import annotations

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from ..structures import IGNORE
from ..visualization import heatmap, overlay


class Pictures(HookBase):
    """Every `period` steps, of an unlabeled image: prediction, pseudo-labels that train, and their weights."""

    def __init__(self, period: int, cfg: Any) -> None:
        self._period = period
        self._threshold = cfg.FRAMEWORK.THRESHOLD
        self._colors = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_colors

    def after_step(self) -> None:
        """Put the pictures of the step's first unlabeled image into the event storage."""
        if (self.trainer.iter + 1) % self._period or not comm.is_main_process():
            return
        framework = self.trainer.framework
        latest = framework.latest
        if "pseudo_labels" not in latest:
            return
        pseudo = latest["pseudo_labels"].map(lambda field: field[0].cpu())
        weak = latest["weak"][0].cpu()
        trained = pseudo.labels.masked_fill(pseudo.confidence < self._threshold, IGNORE)
        weight = pseudo.weight * (trained != IGNORE)
        brightest = 1.0 if framework.weigher is None else framework.weigher.neutral_maximum
        storage = get_event_storage()
        for name, picture in {
            "prediction": overlay(weak, pseudo.labels, self._colors),
            "pseudo_label": overlay(weak, trained, self._colors),
            "weight": heatmap(weight, brightest),
        }.items():
            storage.put_image(f"unlabeled/{name}", picture)
