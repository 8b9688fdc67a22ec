"""The mean teacher's step written again from its description; only the network is the product's."""

import copy

import torch
from plain import consistency, follow, label, mix, normal, supervised


class PlainMeanTeacher:
    """Student and EMA teacher; `weigher`, a `PlainWeigher` or None, also gets each step's embeddings."""

    def __init__(self, student, threshold, max_decay, weigher):
        self.student, self.teacher = copy.deepcopy(student), copy.deepcopy(student).eval()
        self.threshold, self.max_decay, self.weigher = threshold, max_decay, weigher

    def after_step(self, step):
        """The teacher follows the student."""
        follow(self.teacher, self.student, min(1 - 1 / (step + 1), self.max_decay))

    def losses(self, batch, step):
        """The two losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size, count = labeled[0]["image"].shape[1:], len(labeled)
        # In one batch: in a last bit the network's output depends on it, and by that the ranks of channels.
        weak = torch.stack([normal(self.teacher, item["image"]) for item in unlabeled])
        logits, embedding, *_ = self.teacher.sem_seg_head(self.teacher.backbone(weak), size)
        known = [label(*found, self.weigher) for found in zip(unlabeled, logits, embedding, strict=True)]
        views = [[mix(unlabeled, known, i, view, step) for i in range(len(unlabeled))] for view in range(2)]
        images = [item["image"] for item in labeled] + [image for view in views for image, _ in view]
        features = self.student.backbone(torch.stack([normal(self.student, image) for image in images]))
        logits, embedding, *_ = self.student.sem_seg_head(features, size)
        unsupervised = 0.0
        for view, part in zip(views, logits[count:].split(len(unlabeled)), strict=True):
            unsupervised = unsupervised + consistency(part, [pseudo for _, pseudo in view], self.threshold) / 2
        return {
            "loss_sem_seg": supervised(labeled, logits[:count], embedding[:count], self.weigher),
            "loss_unsup": unsupervised,
        }
