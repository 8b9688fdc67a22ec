"""Training of a detector alone, on boxes around the components of labeled masks."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..modeling import build_model
from ..modeling.detector import losses_or_nan
from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .validation import check_paste


@FRAMEWORK_REGISTRY.register()
class Detector(Framework):
    """The paper's detector, trained before the segmenter and on the labeled images alone (section 3.2).

    What it finds on the unlabeled images goes into a file (`tools/cache_boxes.py`) for MODEL.DETECTOR.MODE cached.
    """

    metric = "bbox/AP"
    semi_supervised = False

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """See `Framework.from_config`."""
        return {"student": build_model(cfg)}

    @classmethod
    def check_config(cls, cfg: Any) -> None:
        """See `Framework.check_config`; what a segmenter needs is not asked for."""
        check_paste(cls, cfg)
        if cfg.MODEL.DETECTOR.MODE != "alone":
            raise InputError(
                f"MODEL.META_ARCHITECTURE: {cfg.MODEL.META_ARCHITECTURE} is no detector alone, which "
                "FRAMEWORK.NAME Detector trains; set it to FPNDetector"
            )

    def terms(self, batch: Batch) -> Terms:
        """The losses of region proposals and box head on the labeled images; unlabeled ones are left alone."""
        return [], losses_or_nan(self.student, partial(self.student, batch["labeled"]))
