"""Training on the labeled images alone: what every other framework has to beat."""

from __future__ import annotations

from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms


@FRAMEWORK_REGISTRY.register()
class Supervised(Framework):
    """Cross entropy on labeled images, and the detector's losses where there is one."""

    semi_supervised = False

    def terms(self, batch: Batch) -> Terms:
        """The labeled images' losses; unlabeled images, if any come, are left alone."""
        images = self.images(batch["labeled"], "image")
        features = self.student.encode(images)
        return self.supervised(batch["labeled"], features, self.student.decode(features, images.shape[-2:]))
