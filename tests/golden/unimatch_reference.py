"""UniMatch's step written again from its description, one image after the other; only the network is the product's."""

import copy

import numpy as np
import torch
from toy import BOXES, kept_channels, mix_box


class PlainUniMatch:
    """UniMatch on a copy of a student; `weigher`, a `PlainWeigher` or None, also gets each step's embeddings."""

    def __init__(self, student, threshold, weigher):
        self.student, self.threshold, self.weigher = copy.deepcopy(student), threshold, weigher

    def commit(self, step):
        """Nothing follows the student."""

    def losses(self, batch, step):
        """The three losses of a step."""
        student, threshold, weigher = self.student, self.threshold, self.weigher
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        images = torch.stack([_normal(student, item["image"]) for item in [*labeled, *unlabeled]])
        features = student.backbone(images)
        doubled = {name: torch.cat([maps, _perturb(maps, step)]) for name, maps in features.items()}
        logits, embedding = student.sem_seg_head(doubled, size)
        supervised, pixels = 0.0, 0
        for number, item in enumerate(labeled):
            target = item["sem_seg"].numpy()
            supervised = supervised + _cross_entropy(logits[number], target, (target != 255).astype(float))
            pixels += (target != 255).sum()
            if weigher is not None:
                probability = logits[number].detach().softmax(0).numpy()
                weigher.remember_labeled(embedding[number].detach().numpy(), probability, target)
        known = [
            _pseudo(item, logits[len(labeled) + i], embedding[len(labeled) + i], weigher)
            for i, item in enumerate(unlabeled)
        ]
        # The labeled images' perturbed features were in the decoder's batch, but nothing is learned from them.
        perturbed = logits[2 * len(labeled) + len(unlabeled) :]
        losses = {
            "loss_sem_seg": supervised / pixels / 2,
            "loss_unsup": 0.0,
            "loss_perturbed": _consistency(perturbed, known, threshold) * 0.5 / 2,
        }
        mixed = [[_mix(unlabeled, known, i, view, step) for i in range(len(unlabeled))] for view in range(2)]
        images = torch.stack([_normal(student, image) for view in mixed for image, _ in view])
        logits, _ = student.sem_seg_head(student.backbone(images), size)
        for view, part in zip(mixed, logits.split(len(unlabeled)), strict=True):
            part_loss = _consistency(part, [pseudo for _, pseudo in view], threshold)
            losses["loss_unsup"] = losses["loss_unsup"] + part_loss * 0.25 / 2
        return losses


def _normal(student, image):
    mean, std = student.pixel_mean.flatten().tolist(), student.pixel_std.flatten().tolist()
    return torch.stack([(image[c].float() - mean[c]) / std[c] for c in range(3)])


def _perturb(maps, step):
    dropped = []
    for number, image in enumerate(maps):
        kept = kept_channels(step, number, len(image))
        dropped.append(
            torch.stack([channel * 2 if keep else channel * 0 for channel, keep in zip(image, kept, strict=True)])
        )
    return torch.stack(dropped)


def _pseudo(item, logits, embedding, weigher):
    """Labels, confidence, valid and weight of one weak view, each (H, W)."""
    probability = logits.detach().softmax(0).numpy()
    valid = item["valid"].numpy()
    labels, confidence = np.where(valid, probability.argmax(0), 255), probability.max(0)
    weight = np.ones(labels.shape)
    if weigher is not None:
        embedding = embedding.detach().numpy()
        weight = weigher.weights(embedding, labels)
        weigher.remember_reliable(embedding, labels, confidence, BOXES)
    return {"labels": labels, "confidence": confidence, "valid": valid, "weight": weight}


def _mix(unlabeled, known, number, view, step):
    """A strong view with the box of the image before it pasted in, and what is known about its pixels."""
    image = unlabeled[number]["strong"][view].clone()
    pseudo = {name: field.copy() for name, field in known[number].items()}
    if box := mix_box(step, view, number):
        rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
        image[:, rows, columns] = unlabeled[number - 1]["strong"][view][:, rows, columns]
        for name, field in known[number - 1].items():
            pseudo[name][rows, columns] = field[rows, columns]
    return image, pseudo


def _consistency(logits, known, threshold):
    """Weighted cross entropy of confident valid pixels over the number of valid ones, of all images together."""
    total, count = 0.0, 0
    for image, pseudo in zip(logits, known, strict=True):
        trained = (pseudo["confidence"] >= threshold) & pseudo["valid"]
        assert trained.any() and not trained[pseudo["valid"]].all()
        total = total + _cross_entropy(image, pseudo["labels"], trained * pseudo["weight"])
        count += pseudo["valid"].sum()
    return total / count


def _cross_entropy(logits, target, factor):
    total = 0.0
    log_probability = logits - logits.exp().sum(0).log()
    for kind in range(len(logits)):
        total = total - (log_probability[kind] * torch.from_numpy(factor * (target == kind))).sum()
    return total
