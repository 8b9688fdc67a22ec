"""Mean teacher as Tarvainen and Valpola (2017) have it: the student learns probabilities in place of labels."""

import torch

from wpl_d2.frameworks import FRAMEWORK_REGISTRY
from wpl_d2.frameworks.base import Batch, Terms
from wpl_d2.frameworks.loss_terms import split
from wpl_d2.frameworks.pseudo_labels import predict
from wpl_d2.frameworks.teacher_student import TeacherStudent
from wpl_d2.structures import LossTerm


@FRAMEWORK_REGISTRY.register()
class SoftMeanTeacher(TeacherStudent):
    """The squared distance of the two models' probabilities, times the weight, where the teacher is confident."""

    def terms(self, batch: Batch) -> Terms:
        """One forward of the student over labeled and strong views, and one of the teacher over weak views."""
        items = self.unlabeled(batch)  # none during the burn-in
        labeled = self.stack(batch["labeled"], "image")
        strong = self.make_strong_views(items)[:, 0] if items else labeled[:0]
        images = self.student.normalize(torch.cat([labeled, strong]))
        _, features, output = predict(self.student, images)
        own, student = split(output, len(labeled), len(strong))
        terms, losses = self.supervised_losses(batch["labeled"], features, own)
        if items:
            prediction = self.teacher_forward(items)
            pseudo = self.make_pseudo_labels(items, prediction)
            self.stage_strong(student.embedding, pseudo)
            probabilities = prediction.output.logits.softmax(dim=1)
            terms.append(
                LossTerm(
                    name="loss_unsup",
                    logits=student.logits,
                    target=pseudo.labels,
                    pixel_loss=lambda logits, _: (logits.softmax(dim=1) - probabilities).square().sum(dim=1),
                    mask=(pseudo.confidence >= self.threshold) & pseudo.valid,
                    norm=pseudo.valid,
                    coefficient=self.alpha,
                    weight=pseudo.weight,
                )
            )
        return terms, losses
