"""PC2Seg's reconstruction written again from its description: lists and loops; only the network is the product's."""

import copy

import torch
from plain import label, supervised
from toy import contrast_samples

TEMPERATURE = 0.5


class PlainPC2Seg:
    """PC2Seg on a copy of a student; `weigher`, a `PlainWeigher` or None, gets each step's embeddings.

    Both networks go on in float64: a pixel with another label would change which negatives are drawn.
    """

    def __init__(self, framework, weigher, **settings):
        framework.student.double()
        self.student, self.weigher = copy.deepcopy(framework.student), weigher
        self.__dict__.update(settings)  # threshold, contrast_weight, anchors, negatives

    def losses(self, batch, step):
        """The losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        logits, embedding, weak_maps = self.run([item["image"] for item in [*labeled, *unlabeled]], size)
        losses = {"loss_sem_seg": supervised(labeled, logits, embedding, self.weigher)}
        rest = slice(len(labeled), None)
        weak, weak_maps = logits[rest].detach(), weak_maps[rest].detach()
        known = [label(*found, self.weigher) for found in zip(unlabeled, weak, embedding[rest], strict=True)]
        strong, _, strong_maps = self.run([item["strong"][0] for item in unlabeled], size)
        total, count, cells = 0.0, 0, []
        for image, pseudo in enumerate(known):
            difference = strong[image].softmax(0) - weak[image].softmax(0)
            factor = (pseudo["confidence"] >= self.threshold) * pseudo["valid"] * pseudo["weight"]
            total = total + sum((row**2 * torch.from_numpy(factor)).sum() for row in difference)
            count += pseudo["valid"].sum()
            cells += list_cells(pseudo["labels"], strong_maps[image], weak_maps[image])
        losses["loss_unsup"] = total / count
        return losses | {"loss_contrast": self.contrast_weight * self.contrast(cells, step)}

    def run(self, images, size):
        model = self.student
        images = torch.stack([(image.double() - model.pixel_mean) / model.pixel_std for image in images])
        return model.sem_seg_head(model.backbone(images), size)

    def contrast(self, cells, step):
        """The mean over anchors: each beside its other view, among cells of other labels."""
        which = contrast_samples(step, self.anchors)
        others = contrast_samples(step, self.anchors, self.negatives)
        cells = sorted(cells, key=lambda cell: cell[0])
        total = 0.0
        for number in range(self.anchors):
            kind, query, positive = cells[int(which[number] * len(cells))]
            negatives = [key for other, _, key in cells if other != kind]
            rows = [negatives[int(sample * len(negatives))] for sample in others[number]]
            near, *far = ((torch.cosine_similarity(query, row, dim=0) / TEMPERATURE).exp() for row in (positive, *rows))
            total = total - (near / (near + sum(far))).log()
        return total / self.anchors

    def after_step(self, step):
        """Nothing follows the student."""


def list_cells(labels, first, second):
    """(label, representation in the first view, in the second one) of each labeled cell."""
    height, width = labels.shape
    h, w = first.shape[1:]
    found = []
    for y in range(h):
        for x in range(w):
            kind = labels[int((y + 0.5) * height / h), int((x + 0.5) * width / w)]
            if kind != 255:
                found.append((int(kind), first[:, y, x], second[:, y, x]))
    return found
