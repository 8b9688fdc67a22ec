"""What the references share, written as plainly as they are: one image, class or parameter after the other."""

import numpy as np
import torch
from toy import BOXES, mix_box


def normal(student, image):
    mean, std = student.pixel_mean.flatten().tolist(), student.pixel_std.flatten().tolist()
    return torch.stack([(image[c].float() - mean[c]) / std[c] for c in range(3)])


def supervised(items, logits, embedding, weigher):
    """The mean cross entropy of the labeled images' known pixels; their embeddings go to the weigher."""
    total, pixels = 0.0, 0
    for number, item in enumerate(items):
        target = item["sem_seg"].numpy()
        total = total + cross_entropy(logits[number], target, (target != 255).astype(float))
        pixels += (target != 255).sum()
        if weigher is not None:
            probability = logits[number].detach().softmax(0).numpy()
            weigher.remember_labeled(embedding[number].detach().numpy(), probability, target)
    return total / pixels


def label(item, logits, embedding, weigher):
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


def mix(unlabeled, known, number, view, step):
    """A strong view with the box of the image before it pasted in, and what is known about its pixels."""
    image = unlabeled[number]["strong"][view].clone()
    if box := mix_box(step, view, number):
        rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
        image[:, rows, columns] = unlabeled[number - 1]["strong"][view][:, rows, columns]
    return image, mixed_with(known, number, view, step)


def mixed_with(known, number, view, step):
    """What is known about the pixels of such a view."""
    pseudo = {name: field.copy() for name, field in known[number].items()}
    if box := mix_box(step, view, number):
        rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
        for name, field in known[number - 1].items():
            pseudo[name][rows, columns] = field[rows, columns]
    return pseudo


def consistency(logits, known, threshold):
    """Weighted cross entropy of confident valid pixels over the number of valid ones, of all images together."""
    total, count = 0.0, 0
    for image, pseudo in zip(logits, known, strict=True):
        trained = (pseudo["confidence"] >= threshold) & pseudo["valid"]
        assert trained.any() and not trained[pseudo["valid"]].all()
        total = total + cross_entropy(image, pseudo["labels"], trained * pseudo["weight"])
        count += pseudo["valid"].sum()
    return total / count


def cross_entropy(logits, target, factor):
    total = 0.0
    log_probability = logits - logits.exp().sum(0).log()
    for kind in range(len(logits)):
        total = total - (log_probability[kind] * torch.from_numpy(factor * (target == kind))).sum()
    return total


def follow(teacher, student, decay):
    """Parameters and BN statistics of a teacher after a step."""
    for old, new in ((teacher.parameters(), student.parameters()), (teacher.buffers(), student.buffers())):
        for theirs, ours in zip(old, new, strict=True):
            mean = decay * theirs.detach() + (1 - decay) * ours.detach()
            theirs.data = mean if theirs.is_floating_point() else ours.detach().clone()
