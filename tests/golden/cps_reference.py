"""CPS's step written again from its description, one student after the other; only the network is the product's."""

import copy

import torch
from compare import plain_weigher
from plain import consistency, label, mix, normal, supervised


class PlainCPS:
    """CPS on copies of two students; with a `PlainWeigher` for the first one, the second one gets its own."""

    def __init__(self, students, threshold, alpha, weigher):
        self.students = [copy.deepcopy(student) for student in students]
        self.threshold, self.alpha = threshold, alpha
        self.weighers = [weigher, plain_weigher() if weigher else None]

    def after_step(self, step):
        """The second student's bank moves; the caller moves the first one's."""
        if self.weighers[1]:
            self.weighers[1].end_step()

    def losses(self, batch, step):
        """The two losses of a step, each the sum of both students'."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        known = [self._label(*pair, unlabeled) for pair in zip(self.students, self.weighers, strict=True)]
        losses = {"loss_sem_seg": 0.0, "loss_unsup": 0.0}
        for number, student in enumerate(self.students):
            logits, embedding, _ = _segment(student, [item["image"] for item in labeled])
            losses["loss_sem_seg"] += supervised(labeled, logits, embedding, self.weighers[number])
            mixed = [mix(unlabeled, known[1 - number], i, 0, step) for i in range(len(unlabeled))]
            logits = _segment(student, [image for image, _ in mixed]).logits
            losses["loss_unsup"] += self.alpha * consistency(logits, [pseudo for _, pseudo in mixed], self.threshold)
        return losses

    def _label(self, student, weigher, items):
        with torch.no_grad():
            logits, embedding, _ = _segment(student, [item["image"] for item in items])
        return [label(*found, weigher) for found in zip(items, logits, embedding, strict=True)]


def _segment(student, images):
    features = student.backbone(torch.stack([normal(student, image) for image in images]))
    return student.sem_seg_head(features, images[0].shape[1:])
