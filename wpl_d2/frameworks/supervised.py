"""Training on the labeled images alone: what every other framework has to beat."""

from __future__ import annotations

from ..structures import PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms


@FRAMEWORK_REGISTRY.register()
class Supervised(Framework):
    """Cross entropy on labeled images, and the detector's losses where there is one."""

    @property
    def semi_supervised(self) -> bool:
        """Never: unlabeled images, if any come, are left alone."""
        return False

    def terms(self, batch: Batch, labels: PseudoLabels | None) -> Terms:
        """The labeled images' losses; `labels` is None."""
        images = self.images(batch["labeled"], "image")
        features = self.student.encode(images)
        return self.supervised(batch["labeled"], features, self.student.decode(features, images.shape[-2:]))
