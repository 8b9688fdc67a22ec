"""Pictures of the training in TensorBoard."""

from __future__ import annotations

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..structures import IGNORE
from ..visualization import heatmap, optional_picture, overlay


class Pictures(HookBase):
    """Pictures of a step's first images, every `period` steps.

    Of a labeled one: the student's prediction, and the truth; of an unlabeled one: the labeler's prediction, the
    pseudo-labels that train, and their weights.
    """

    def __init__(self, period: int, cfg: Any) -> None:
        self._period = period
        self._threshold = cfg.FRAMEWORK.THRESHOLD
        self._colors = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_colors

    def after_step(self) -> None:
        """Put the pictures of the step's first images into the event storage."""
        if (self.trainer.iter + 1) % self._period or not comm.is_main_process():
            return
        with optional_picture(f"TensorBoard's pictures of step {self.trainer.iter}"):
            self._put(self.trainer.framework.latest)

    def _put(self, latest: dict[str, Any]) -> None:
        pictures: dict[str, Any] = {}
        if "labeled" in latest:
            pictures |= self._labeled(*latest["labeled"])
        if "pseudo_labels" in latest:
            pictures |= self._unlabeled(latest)
        for name, picture in pictures.items():
            get_event_storage().put_image(name, picture)

    def _labeled(self, image: Tensor, truth: Tensor, logits: Tensor) -> dict[str, Any]:
        return {
            "labeled/prediction": overlay(image, logits.argmax(dim=0).cpu(), self._colors),
            "labeled/truth": overlay(image, truth, self._colors),
        }

    def _unlabeled(self, latest: dict[str, Any]) -> dict[str, Any]:
        pseudo = latest["pseudo_labels"].map(lambda field: field[0].cpu())
        weak = latest["weak"][0].cpu()
        trained = pseudo.labels.masked_fill(pseudo.confidence < self._threshold, IGNORE)
        weight = pseudo.weight * (trained != IGNORE)
        weigher = self.trainer.framework.weigher
        return {
            "unlabeled/prediction": overlay(weak, pseudo.labels, self._colors),
            "unlabeled/pseudo_label": overlay(weak, trained, self._colors),
            "unlabeled/weight": heatmap(weight, 1.0 if weigher is None else weigher.neutral_maximum),
        }
