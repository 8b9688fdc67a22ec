"""Training of a detector alone, on the component boxes of labeled masks."""

from __future__ import annotations

from functools import partial
from typing import Any

from typing_extensions import override

from ..modeling import build_model
from ..modeling.detector import losses_or_nan
from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .validation import check_paste


@FRAMEWORK_REGISTRY.register()
class Detector(Framework):
    """The paper's detector, trained before the segmenter and on the labeled images alone (section 3.2).

    With SOLVER.GRAD_ACCUMULATION the proposals over which its losses are averaged are those of a micro-batch.

    `tools/cache_boxes.py` writes its detections on the unlabeled images to a file for MODEL.DETECTOR.MODE cached.
    """

    metric = "bbox/AP"
    semi_supervised = False

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return {"student": build_model(cfg)}

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        # What a segmenter needs is not asked for.
        check_paste(cls, cfg)
        if cfg.MODEL.DETECTOR.MODE != "alone":
            raise InputError(
                f"MODEL.META_ARCHITECTURE: {cfg.MODEL.META_ARCHITECTURE} is not a detector alone, which "
                "FRAMEWORK.NAME Detector trains; set it to FPNDetector"
            )

    @override
    def terms(self, batch: Batch) -> Terms:
        return [], losses_or_nan(self.student, partial(self.student, batch["labeled"]))
