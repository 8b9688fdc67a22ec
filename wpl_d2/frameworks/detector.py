"""Training of a detector alone, on the component boxes of labeled masks."""

from __future__ import annotations

from functools import partial
from typing import Any

from typing_extensions import override

from ..modeling import FPNDetector, build_model
from ..modeling.detector import losses_or_nan
from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .validation import check_paste


@FRAMEWORK_REGISTRY.register()
class Detector(Framework):
    """The paper's detector, trained before the segmenter and on the labeled images alone (section 3.2).

    `tools/cache_boxes.py` writes its detections on the unlabeled images to a file for MODEL.DETECTOR.MODE cached.
    """

    metric = "bbox/AP"
    semi_supervised = False

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        check_paste(cfg, cls.pastes)
        for key, on in (("WEIGHTING", cfg.WEIGHTING.ENABLED), ("RPPI", cfg.RPPI.ENABLED)):
            if on:
                raise InputError(f"{key}.ENABLED: True, but a detector labels no pixels; set it to False")
        student = build_model(cfg)
        if not isinstance(student, FPNDetector):
            raise InputError(
                f"MODEL.META_ARCHITECTURE: {cfg.MODEL.META_ARCHITECTURE} is no detector alone, which "
                "FRAMEWORK.NAME Detector trains; set it to FPNDetector"
            )
        return {"student": student}

    @override
    def terms(self, batch: Batch) -> Terms:
        return [], losses_or_nan(self.student, partial(self.student, batch["labeled"]))
