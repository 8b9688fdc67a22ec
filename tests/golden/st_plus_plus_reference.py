"""ST++'s step and its score of an image written again from the paper and its code's recipe, plainly."""

import copy

import numpy as np
import torch
from plain import cross_entropy, normal, supervised
from toy import mix_box, noise


class PlainSTPlusPlus:
    """A student of stored labels; `weigher`, a `PlainWeigher` or None, only collects the labeled images' embeddings."""

    def __init__(self, student, weigher):
        self.student, self.weigher = copy.deepcopy(student), weigher

    def after_step(self, step):
        """Nothing follows the student."""

    def losses(self, batch, step):
        """The two parts of the mean over all pixels that have a label."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        views = [cut_out(item, number, step) for number, item in enumerate(unlabeled)]
        images = [*(item["image"] for item in labeled), *(image for image, _, _ in views)]
        features = self.student.backbone(torch.stack([normal(self.student, image) for image in images]))
        logits, embedding, *_ = self.student.sem_seg_head(features, labeled[0]["image"].shape[1:])
        known = sum(int((item["sem_seg"] != 255).sum()) for item in labeled)
        pixels = known + sum((labels != 255).sum() for _, labels, _ in views)
        unsupervised = 0.0
        for (_, labels, weight), own in zip(views, logits[len(labeled) :], strict=True):
            unsupervised = unsupervised + cross_entropy(own, labels, weight)
        own = supervised(labeled, logits[: len(labeled)], embedding[: len(labeled)], self.weigher)
        return {"loss_sem_seg": own * known / pixels, "loss_unsup": unsupervised / pixels}


def cut_out(item, number, step):
    """The strong view of an item, its labels and their weights; a box of it is noise without labels."""
    image, labels, weight = item["strong"][0].clone(), item["pseudo_labels"].numpy().copy(), item["pseudo_weight"]
    if box := mix_box(step, 0, number):
        rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
        image[:, rows, columns] = torch.from_numpy(noise(step)[number])[:, rows, columns]
        labels[rows, columns] = 255
    return image, labels, weight.numpy()


def plain_image_score(labels):
    """The mean over all label maps but the last of their mIoU with the last, pixel by pixel."""
    scores = []
    last = np.asarray(labels[-1]).ravel().tolist()
    for one in labels[:-1]:
        pairs = list(zip(np.asarray(one).ravel().tolist(), last, strict=True))
        ious = []
        for kind in {kind for pair in pairs for kind in pair}:
            either = [pair for pair in pairs if kind in pair]
            ious.append(sum(pair == (kind, kind) for pair in either) / len(either))
        scores.append(sum(ious) / len(ious))
    return sum(scores) / len(scores)
