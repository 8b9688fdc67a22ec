"""Training on the labeled images alone: the baseline of every other framework."""

from __future__ import annotations

from typing_extensions import override

from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .pseudo_labels import predict
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class Supervised(Framework):
    """Cross entropy on labeled images, and the detector's losses where there is one.

    A step of SOLVER.GRAD_ACCUMULATION is one of the whole batch but for what is of each micro-batch: BN statistics,
    the hard pixels of OHEM (MIN_KEPT divided by the number of micro-batches), and the proposals over which the
    detector's losses are averaged.
    """

    semi_supervised = False

    @override
    def terms(self, batch: Batch) -> Terms:
        _, features, output = predict(self.student, self.images(batch["labeled"], "image"))
        return self.supervised_losses(batch["labeled"], features, output)


@FRAMEWORK_REGISTRY.register()
class SupervisedEMA(Supervised, TeacherStudent):
    """`Supervised`, evaluated as an EMA of the student: what a teacher gains by averaging weights alone.

    The teacher makes no pseudo-labels. It moves as `MeanTeacher`'s does, so that under one schedule both average the
    same steps: until BURN_IN it is the student's copy, and t counts from there.
    """
