"""From images to class ids and boxes, by any model model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..checkpoint.metadata import restore_cfg
from ..config import override
from ..utils.cpu_speed import label_map
from ..utils.errors import InputError
from .build import build_predict
from .runtime_model import Detections, RuntimeModel


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        labels: (H, W) uint8 class ids; None from a model that only finds boxes.
        found: on the CPU; None from a model that only segments.
    """

    labels: np.ndarray | None
    found: Detections | None


_KEYS = "TEST.INFERENCE."


class Predictor:
    """Predicts images in the way of `TEST.INFERENCE`; boxes are found on whole images."""

    def __init__(self, model: RuntimeModel, device: str, min_score: float = 0.5, opts: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            model: of `open_model`, on the same device.
            device: to put images on.
            min_score: boxes with a lower score are left out.
            opts: keys below TEST.INFERENCE and values in turn; the rest is as in the training's config. Its mode crop,
                which judges the centre and leaves the rest of the image without a prediction, becomes whole.

        Raises:
            InputError: a key is another, or has a value that does not do.
        """
        for key in opts[::2]:
            if not key.startswith(_KEYS):
                raise InputError(f"overrides: {key} cannot change a trained model; set keys that begin with {_KEYS}")
        cfg = restore_cfg(model.metadata["config"])
        if cfg.TEST.INFERENCE.MODE == "crop":
            cfg.TEST.INFERENCE.MODE = "whole"
        override(cfg, opts)
        self.segment = build_predict(cfg, model.segment) if model.segment else None
        self.detect = model.detect
        self.device = device
        self.min_score = min_score

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Predict a batch.

        Args:
            images: (H, W, 3) uint8 RGB, all of one size.
        """
        batch = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float()
        labels: Sequence[np.ndarray | None] = [None] * len(images)
        if self.segment is not None:
            labels = [label_map(logits).cpu().numpy() for logits in self.segment(batch)]
        founds: Sequence[Detections | None] = [None] * len(images)
        if self.detect is not None:
            founds = [self._sure(found) for found in self.detect(batch)]
        return [Prediction(*pair) for pair in zip(labels, founds, strict=True)]

    def _sure(self, found: Detections) -> Detections:
        kept = (found.scores >= self.min_score) & found.boxes.isfinite().all(dim=1)
        return Detections(*(values[kept].cpu() for values in found))
