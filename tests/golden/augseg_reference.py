"""AugSeg's step written again from its description, one image after the other; only the network is the product's."""

import copy
import math

import numpy as np
import torch
from plain import consistency, follow, label, normal, supervised
from toy import CLASSES, mixing_plan


class PlainAugSeg:
    """AugSeg on a copy of a student; `weigher`, a `PlainWeigher` or None, also gets each step's embeddings."""

    def __init__(self, student, threshold, decay, copies, weigher):
        self.student, self.teacher = copy.deepcopy(student), copy.deepcopy(student).eval()
        self.threshold, self.decay, self.copies, self.weigher = threshold, decay, copies, weigher
        self.injected = []

    def after_step(self, step):
        """The teacher is the student's copy for some steps, and then its average."""
        follow(self.teacher, self.student, min(1 - 1 / (step + 1), self.decay) if step >= self.copies else 0.0)

    def losses(self, batch, step):
        """The two losses of a step."""
        student, labeled, unlabeled = self.student, batch["labeled"], batch["unlabeled"]
        seen = [self._label(item) for item in unlabeled]
        mixed = self._mix(labeled, unlabeled, seen, step)
        images = [item["image"] for item in labeled] + [image for image, _ in mixed]
        images = torch.stack([normal(student, image) for image in images])
        logits, embedding, *_ = student.sem_seg_head(student.backbone(images), images.shape[2:])
        return {
            "loss_sem_seg": supervised(labeled, logits, embedding, self.weigher),
            "loss_unsup": consistency(logits[len(labeled) :], [known for _, known in mixed], self.threshold),
        }

    @torch.no_grad()
    def _label(self, item):
        """What is known about a weak view, and how sure the teacher is of it."""
        image = normal(self.teacher, item["image"])[None]
        logits, embedding, *_ = self.teacher.sem_seg_head(self.teacher.backbone(image), image.shape[2:])
        known = label(item, logits[0], embedding[0], self.weigher)
        total, pixels = 0.0, 0
        probability = logits[0].softmax(0).numpy()
        for y, x in np.argwhere(known["valid"]):
            entropy = sum(-p * math.log(p) for p in probability[:, y, x].tolist() if p > 0)
            total += (1 - entropy / math.log(CLASSES)) * known["confidence"][y, x]
            pixels += 1
        return known, total / pixels

    def _mix(self, labeled, unlabeled, seen, step):
        partner, chance, patches, boxes = mixing_plan(step)
        candidates = []
        for i, (item, (known, score)) in enumerate(zip(unlabeled, seen, strict=True)):
            image, known = item["strong"][0].clone(), {name: field.copy() for name, field in known.items()}
            donor = labeled[partner[i] % len(labeled)]
            truth = donor["sem_seg"].numpy()
            others = {"labels": truth, "confidence": truth * 0 + 1, "valid": truth != 255, "weight": truth * 0 + 1}
            self.injected.append(chance[i] > score)
            if self.injected[-1]:
                _paste(image, known, donor["image"], others, patches[i])
            candidates.append((image, known))
        mixed = []
        for i, (item, (known, _)) in enumerate(zip(unlabeled, seen, strict=True)):
            image, known = item["strong"][0].clone(), {name: field.copy() for name, field in known.items()}
            _paste(image, known, *candidates[partner[i]], boxes[i])
            mixed.append((image, known))
        return mixed


def _paste(image, known, other, others, box):
    """Overwrite the box in an image and in what is known about it, in place."""
    rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
    image[:, rows, columns] = other[:, rows, columns]
    for name, field in others.items():
        known[name][rows, columns] = field[rows, columns]
