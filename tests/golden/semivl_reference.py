"""SemiVL's step written again from its description; only the network is the product's."""

import copy

import torch
import torch.nn.functional as F
from plain import consistency, cross_entropy, label, mix, mixed_with, normal, supervised
from toy import kept_channels

STEPS = 5


class PlainSemiVL:
    """SemiVL on a copy of a student; `concepts` are the numbers of each class's concepts."""

    def __init__(self, student, threshold, weigher, concepts, guidance_conf, guidance_weight):
        self.student, self.threshold, self.weigher = copy.deepcopy(student), threshold, weigher
        self.guide = copy.deepcopy(student.backbone)
        self.concepts, self.guidance_conf, self.guidance_weight = concepts, guidance_conf, guidance_weight

    def after_step(self, step):
        """Nothing follows the student."""

    def losses(self, batch, step):
        """The four losses of a step."""
        student, labeled, unlabeled = self.student, batch["labeled"], batch["unlabeled"]
        size, count = labeled[0]["image"].shape[1:], len(unlabeled)
        images = torch.stack([normal(student, item["image"]) for item in [*labeled, *unlabeled]])
        features = student.backbone(images)
        doubled = {name: torch.cat([maps, self._perturb(maps, step)]) for name, maps in features.items()}
        logits, embedding, _ = student.sem_seg_head(doubled, size)
        weak = slice(len(labeled), len(labeled) + count)
        known = [label(*found, self.weigher) for found in zip(unlabeled, logits[weak], embedding[weak], strict=True)]
        for pseudo in known:
            pseudo["weight"][:] = 1
        guidance = self._guidance(unlabeled, images[weak], embedding[weak], size)
        falling = self.guidance_weight * (1 - step / STEPS)
        views = [[mix(unlabeled, known, i, view, step) for i in range(count)] for view in range(2)]
        strong = torch.stack([normal(student, image) for view in views for image, _ in view])
        strong = student.sem_seg_head(student.backbone(strong), size).logits
        perturbed = logits[2 * len(labeled) + count :]
        losses = {
            "loss_sem_seg": supervised(labeled, logits, embedding, self.weigher) / 2,
            "loss_unsup": 0.0,
            "loss_perturbed": consistency(perturbed, known, self.threshold) * 0.5 / 2,
            "loss_guidance": self._guided(perturbed, guidance) * 0.5 * falling,
        }
        for number, (view, own) in enumerate(zip(views, strong.split(count), strict=True)):
            losses["loss_unsup"] = (
                losses["loss_unsup"] + consistency(own, [pseudo for _, pseudo in view], self.threshold) * 0.25 / 2
            )
            labels = [mixed_with(guidance, i, number, step) for i in range(count)]
            losses["loss_guidance"] = losses["loss_guidance"] + self._guided(own, labels) * 0.25 * falling
        return losses

    @torch.no_grad()
    def _guidance(self, unlabeled, images, embedding, size):
        """What CLIP by itself says of each image, weighed by the student's embeddings."""
        found = self.guide(images)["res5"]
        table, known = self.student.sem_seg_head.concepts, []
        for item, own, of_student in zip(unlabeled, found, embedding, strict=True):
            maps, first = [], 0
            for number in self.concepts:
                cosines = [(own * table[first + i][:, None, None]).sum(0) for i in range(number)]
                maps.append(torch.stack(cosines).max(0).values)
                first += number
            logits = 100 * F.interpolate(torch.stack(maps)[None], size, mode="bilinear", align_corners=False)[0]
            pseudo = label(item, logits, of_student, None)
            if self.weigher is not None:
                pseudo["weight"] = self.weigher.weights(of_student.numpy(), pseudo["labels"])
            known.append(pseudo)
        return known

    def _guided(self, logits, known):
        """The weighted cross entropy of CLIP's sure labels over the number of all pixels."""
        total, count, trained, valid = 0.0, 0, 0, 0
        for image, pseudo in zip(logits, known, strict=True):
            sure = (pseudo["confidence"] >= self.guidance_conf) & pseudo["valid"]
            total = total + cross_entropy(image, pseudo["labels"], sure * pseudo["weight"])
            count, trained, valid = count + sure.size, trained + sure.sum(), valid + pseudo["valid"].sum()
        assert 0 < trained < valid < count
        return total / count

    def _perturb(self, maps, step):
        dropped = []
        for number, image in enumerate(maps):
            kept = kept_channels(step, number, len(image))
            dropped.append(torch.stack([c * 2 if keep else c * 0 for c, keep in zip(image, kept, strict=True)]))
        return torch.stack(dropped)
