"""UniMatch's step written again from its description, one image after the other; only the network is the product's."""

import copy

import torch
from plain import consistency, label, mix, normal, supervised
from toy import kept_channels


class PlainUniMatch:
    """UniMatch on a copy of a student; `weigher`, a `PlainWeigher` or None, also gets each step's embeddings."""

    def __init__(self, student, threshold, weigher):
        self.student, self.threshold, self.weigher = copy.deepcopy(student), threshold, weigher

    def after_step(self, step):
        """Nothing follows the student."""

    def losses(self, batch, step):
        """The three losses of a step."""
        student, weigher = self.student, self.weigher
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        images = torch.stack([normal(student, item["image"]) for item in [*labeled, *unlabeled]])
        features = student.backbone(images)
        doubled = {name: torch.cat([maps, perturb(maps, step)]) for name, maps in features.items()}
        logits, embedding, _ = student.sem_seg_head(doubled, size)
        kinds = self.kinds_of_labels(labeled, unlabeled, logits.detach(), embedding, step)
        # The labeled images' perturbed features were in the decoder's batch, but nothing is learned from them.
        perturbed = logits[2 * len(labeled) + len(unlabeled) :]
        losses = {
            "loss_sem_seg": supervised(labeled, logits, embedding, weigher) / 2,
            "loss_unsup": 0.0,
            "loss_perturbed": 0.0,
        }
        views = [[mix(unlabeled, kinds[0][0], i, view, step)[0] for i in range(len(unlabeled))] for view in range(2)]
        images = torch.stack([normal(student, image) for view in views for image in view])
        parts = student.sem_seg_head(student.backbone(images), size).logits.split(len(unlabeled))
        for known, threshold, factor in kinds:
            losses["loss_perturbed"] += factor * consistency(perturbed, known, threshold) * 0.5 / 2
            for view, part in enumerate(parts):
                mixed = [mix(unlabeled, known, i, view, step)[1] for i in range(len(unlabeled))]
                losses["loss_unsup"] += factor * consistency(part, mixed, threshold) * 0.25 / 2
        return losses

    def kinds_of_labels(self, labeled, unlabeled, logits, embedding, step):
        """What is known of each unlabeled image, by whom, with threshold and factor."""
        return [(self.label(labeled, unlabeled, logits, embedding), self.threshold, 1.0)]

    def label(self, labeled, unlabeled, logits, embedding):
        """What is known of each unlabeled image; the outputs are those of both, labeled ones first."""
        rest = slice(len(labeled), len(labeled) + len(unlabeled))
        return [label(*found, self.weigher) for found in zip(unlabeled, logits[rest], embedding[rest], strict=True)]


def perturb(maps, step):
    dropped = []
    for number, image in enumerate(maps):
        kept = kept_channels(step, number, len(image))
        dropped.append(
            torch.stack([channel * 2 if keep else channel * 0 for channel, keep in zip(image, kept, strict=True)])
        )
    return torch.stack(dropped)
