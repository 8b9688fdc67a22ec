"""PCR's step written again from its description, one pixel, class and prototype after the other."""

import numpy as np
import torch
from mean_teacher_reference import PlainMeanTeacher
from plain import consistency, follow, label, mix, normal, supervised
from toy import CLASSES, SIZE, grid_samples

TEMPERATURE, PROTOTYPES, MOMENTUM = 0.1, 2, 0.9


class PlainPCR(PlainMeanTeacher):
    """Student and EMA teacher; see `PlainMeanTeacher`. The first step is supervised."""

    def __init__(self, student, threshold, max_decay, weigher, alpha, weight):
        super().__init__(student, threshold, max_decay, weigher)
        self.alpha, self.weight = alpha, weight
        self.prototypes = None  # by class, each a list of vectors
        self.seen = []  # pairs of a feature and its class

    def losses(self, batch, step):
        """The losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"] if step else []
        count, known, views = len(labeled), [], []
        if unlabeled:
            weak = torch.stack([normal(self.teacher, item["image"]) for item in unlabeled])
            logits, embedding, *_ = self.teacher.sem_seg_head(self.teacher.backbone(weak), SIZE)
            known = [label(*found, self.weigher) for found in zip(unlabeled, logits, embedding, strict=True)]
            views = [mix(unlabeled, known, i, 0, step) for i in range(len(unlabeled))]
        images = [item["image"] for item in labeled] + [image for image, _ in views]
        merged, logits, embedding = self._segment(torch.stack([normal(self.student, image) for image in images]))
        losses = {"loss_sem_seg": supervised(labeled, logits[:count], embedding[:count], self.weigher)}
        self.seen = []
        if not unlabeled:
            self._see_all(merged.detach().numpy(), [item["sem_seg"].numpy() for item in labeled])
            return losses
        pseudo = [fields for _, fields in views]
        second = self._by_prototypes(merged)
        losses["loss_prototypes"] = self.weight * supervised(labeled, second[:count], None, None)
        both = [consistency(part[count:], pseudo, self.threshold) for part in (logits, second)]
        losses["loss_unsup"] = self.alpha * (both[0] + self.weight * both[1])
        sure = [np.where(fields["confidence"] >= self.threshold, fields["labels"], 255) for fields in pseudo]
        self._see_some(merged.detach().numpy(), [item["sem_seg"].numpy() for item in labeled] + sure, step)
        return losses

    def after_step(self, step):
        """The teacher is a copy after the supervised step, and then follows; so do the prototypes."""
        follow(self.teacher, self.student, min(1 - 1 / step, self.max_decay) if step > 0 else 0.0)
        if step == 0:
            self.prototypes = [clusters([f for f, kind in self.seen if kind == c]) for c in range(CLASSES)]
            return
        for kind in range(CLASSES):
            near = [[] for _ in range(PROTOTYPES)]
            for feature, own in self.seen:
                if own == kind:
                    near[nearest(feature, self.prototypes[kind])].append(feature)
            for number, features in enumerate(near):
                if features:
                    old = self.prototypes[kind][number]
                    self.prototypes[kind][number] = MOMENTUM * old + (1 - MOMENTUM) * np.mean(features, 0)

    def _segment(self, images):
        """The decoder's concatenation, logits and embedding: its last convolutions are caught at their input."""
        caught, head = [], self.student.sem_seg_head
        last = head.decoder[head.in_features[0]]["fuse_conv"]
        hook = last.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        logits, embedding, _ = head(self.student.backbone(images), SIZE)
        hook.remove()
        return caught[0], logits, embedding

    def _by_prototypes(self, merged):
        lengths = merged.square().sum(1).sqrt()
        maps = []
        for vectors in self.prototypes:
            cosines = [(merged * unit(v)[None, :, None, None]).sum(1) / lengths for v in map(torch.from_numpy, vectors)]
            maps.append(torch.stack(cosines).max(0).values / TEMPERATURE)
        return torch.nn.functional.interpolate(torch.stack(maps, 1), SIZE, mode="bilinear")

    def _see_all(self, merged, labels):
        for image, target in zip(merged, labels, strict=True):
            for row in range(image.shape[1]):
                for column in range(image.shape[2]):
                    self._see(image, target, row, column)

    def _see_some(self, merged, labels, step):
        for number, (image, target) in enumerate(zip(merged, labels, strict=True)):
            drawn = grid_samples(step, number)
            for i in range(drawn.shape[1]):
                for j in range(drawn.shape[2]):
                    row = int((i + drawn[0, i, j]) / drawn.shape[1] * image.shape[1])
                    column = int((j + drawn[1, i, j]) / drawn.shape[2] * image.shape[2])
                    self._see(image, target, row, column)

    def _see(self, image, target, row, column):
        y, x = ((2 * place + 1) * side // (2 * cells) for place, side, cells in
                ((row, SIZE[0], image.shape[1]), (column, SIZE[1], image.shape[2])))  # fmt: skip
        if target[y, x] != 255:
            self.seen.append((unit(image[:, row, column]), int(target[y, x])))


def unit(vector):
    return vector / (vector**2).sum() ** 0.5


def nearest(feature, vectors):
    return int(np.argmax([feature @ unit(vector) for vector in vectors]))


def clusters(features):
    """Spherical k-means from the feature nearest to the mean and those farthest from the ones before."""
    centers = [max(features, key=lambda f: f @ np.sum(features, 0))]
    while len(centers) < PROTOTYPES:
        centers.append(min(features, key=lambda f: max(f @ center for center in centers)))
    for _ in range(20):
        members = [[] for _ in centers]
        for feature in features:
            members[nearest(feature, centers)].append(feature)
        centers = [unit(np.sum(own, 0)) if own else old for own, old in zip(members, centers, strict=True)]
    return centers
