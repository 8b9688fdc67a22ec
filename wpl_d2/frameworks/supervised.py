"""Training on the labeled images alone: what every other framework has to beat."""

from __future__ import annotations

from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class Supervised(Framework):
    """Cross entropy on labeled images, and the detector's losses where there is one."""

    semi_supervised = False

    def terms(self, batch: Batch) -> Terms:
        """The labeled images' losses; unlabeled images, if any come, are left alone."""
        images = self.images(batch["labeled"], "image")
        features = self.student.encode(images)
        return self.supervised(batch["labeled"], features, self.student.decode(features, images.shape[-2:]))


@FRAMEWORK_REGISTRY.register()
class SupervisedEMA(Supervised, TeacherStudent):
    """`Supervised`, judged by an EMA of the student: how much of a teacher's figure is owed to smoothing alone.

    The student is `Supervised`'s, and the teacher labels nothing. It moves as `MeanTeacher`'s does: until BURN_IN it is
    the student's copy, and t counts from there, so that under one schedule both average the same steps. A framework of
    its own, because a key that switches an EMA on would be without effect in every other one.
    """
