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
        student, threshold, weigher = self.student, self.threshold, self.weigher
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        images = torch.stack([normal(student, item["image"]) for item in [*labeled, *unlabeled]])
        features = student.backbone(images)
        doubled = {name: torch.cat([maps, _perturb(maps, step)]) for name, maps in features.items()}
        logits, embedding, _ = student.sem_seg_head(doubled, size)
        known = self.label(labeled, unlabeled, logits.detach(), embedding)
        # The labeled images' perturbed features were in the decoder's batch, but nothing is learned from them.
        perturbed = logits[2 * len(labeled) + len(unlabeled) :]
        losses = {
            "loss_sem_seg": supervised(labeled, logits, embedding, weigher) / 2,
            "loss_unsup": 0.0,
            "loss_perturbed": consistency(perturbed, known, threshold) * 0.5 / 2,
        }
        mixed = [[mix(unlabeled, known, i, view, step) for i in range(len(unlabeled))] for view in range(2)]
        images = torch.stack([normal(student, image) for view in mixed for image, _ in view])
        logits = student.sem_seg_head(student.backbone(images), size).logits
        for view, part in zip(mixed, logits.split(len(unlabeled)), strict=True):
            part_loss = consistency(part, [pseudo for _, pseudo in view], threshold)
            losses["loss_unsup"] = losses["loss_unsup"] + part_loss * 0.25 / 2
        return losses

    def label(self, labeled, unlabeled, logits, embedding):
        """What is known of each unlabeled image; the outputs are those of both, labeled ones first."""
        rest = slice(len(labeled), len(labeled) + len(unlabeled))
        return [label(*found, self.weigher) for found in zip(unlabeled, logits[rest], embedding[rest], strict=True)]


def _perturb(maps, step):
    dropped = []
    for number, image in enumerate(maps):
        kept = kept_channels(step, number, len(image))
        dropped.append(
            torch.stack([channel * 2 if keep else channel * 0 for channel, keep in zip(image, kept, strict=True)])
        )
    return torch.stack(dropped)
