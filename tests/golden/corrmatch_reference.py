"""CorrMatch's step written again from its description: cells, regions and classes one after the other."""

import copy
import math

import numpy as np
import torch
from plain import consistency, label, mix, mixed_with, normal, supervised
from pseudoseg_reference import cells
from toy import BOXES, CLASSES, SIZE, cell_places, mix_box
from unimatch_reference import perturb


class PlainCorrMatch:
    """CorrMatch on a copy of a student."""

    def __init__(self, student, threshold, momentum, regions, weigher):
        self.student, self.weigher = copy.deepcopy(student), weigher
        self.threshold, self.momentum, self.regions = threshold, momentum, regions
        self.spread = {"regions": 0, "accepted": 0, "changed": 0, "entered": 0}

    def after_step(self, step):
        """The threshold follows the highest confidence of the classes that were predicted."""
        mean = sum(self.peaks.values()) / len(self.peaks)
        self.threshold = self.momentum * self.threshold + (1 - self.momentum) * mean

    def losses(self, batch, step):
        """The six losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        count, every = len(labeled), [*labeled, *unlabeled]
        features = self.student.backbone(torch.stack([normal(self.student, item["image"]) for item in every]))
        doubled = {name: torch.cat([maps, perturb(maps, step)]) for name, maps in features.items()}
        logits, embedding, _ = self.student.sem_seg_head(doubled, SIZE)
        weak, perturbed = logits[count : len(every)], logits[len(every) + count :]
        scores = self._scores(features)
        known = self._label(unlabeled, weak, embedding[count:], scores[count:], step)
        mixed = [mixed_with(known, number, 0, step) for number in range(len(unlabeled))]
        views = [normal(self.student, mix(unlabeled, known, number, 0, step)[0]) for number in range(len(unlabeled))]
        features = self.student.backbone(torch.stack(views))
        strong = self.student.sem_seg_head(features, SIZE).logits
        own = [self._propagated(*pair) for pair in zip(scores, logits, [item["valid"] for item in every], strict=False)]
        on_strong = [
            self._propagated(*pair)
            for pair in zip(self._scores(features), strong, [torch.from_numpy(p["valid"]) for p in mixed], strict=True)
        ]
        propagated = consistency(own[count:], known, self.threshold) + consistency(on_strong, mixed, self.threshold)
        return {
            "loss_sem_seg": supervised(labeled, logits, embedding, self.weigher) / 4,
            "loss_correlation": supervised(labeled, own, None, None) / 4,
            "loss_unsup": consistency(strong, mixed, self.threshold) / 8,
            "loss_kl": self._divergence(strong, weak.detach().softmax(1), mixed, step) / 8,
            "loss_perturbed": consistency(perturbed, known, self.threshold) / 8,
            "loss_propagated": propagated / 2 / 8,
        }

    def _scores(self, features):
        """Of each image how alike each cell, a row, is to each, a column."""
        head = self.student.method_head
        hidden = head.conv(features["res5"])
        query, key = (
            torch.einsum("dc,bchw->bhwd", conv.weight[:, :, 0, 0], hidden) + conv.bias
            for conv in (head.query, head.key)
        )
        self.grid = query.shape[1:3]
        return [q.flatten(0, 1) @ k.flatten(0, 1).T / math.sqrt(CLASSES) for q, k in zip(query, key, strict=True)]

    def _propagated(self, scores, logits, valid):
        """The logits (C, H, W) of an image's cells, each the mean of all by its map."""
        inside = cells(valid, self.grid).flatten()
        values = resize(logits.detach(), self.grid).flatten(1)
        rows = [values @ row.masked_fill(~inside, -torch.inf).softmax(0) for row in scores]
        return resize(torch.stack(rows, 1).unflatten(1, self.grid), SIZE)

    def _label(self, items, logits, embedding, scores, step):
        """What is known of each weak view once labels have spread."""
        self.peaks, known = {}, []
        for number, item in enumerate(items):
            pseudo = label(item, logits[number], None, None)
            for kind in range(CLASSES):
                found = pseudo["confidence"][pseudo["labels"] == kind]
                if len(found):
                    self.peaks[kind] = max(self.peaks.get(kind, 0), float(found.max()))
            known.append(pseudo)
        for number, pseudo in enumerate(known):
            self._spread(pseudo, scores[number].detach(), cell_places(step, len(items), self.regions)[number])
            if self.weigher is not None:
                own = embedding[number].detach().numpy()
                pseudo["weight"] = self.weigher.weights(own, pseudo["labels"])
                self.weigher.remember_reliable(own, pseudo["labels"], pseudo["confidence"], BOXES)
        return known

    def _spread(self, pseudo, scores, places):
        inside = cells(torch.from_numpy(pseudo["valid"]), self.grid).flatten()
        labels, confidence = (
            cells(torch.from_numpy(pseudo[name]), self.grid).flatten() for name in ("labels", "confidence")
        )
        highest = torch.zeros(CLASSES, len(inside))
        for place in places:
            row = scores[inside.nonzero()[int(place * int(inside.sum()))][0]].double().exp()
            low, high = row[inside].min(), row[inside].max()
            scaled = ((row - low) / (high - low)).float().masked_fill(~inside, 0)
            region = scaled > 0.5
            numbers = [int((labels[region] == kind).sum()) for kind in range(CLASSES)]
            sure = float((confidence[region] >= self.threshold).sum() / region.sum())
            self.spread["regions"] += 1
            if sure >= self.threshold and max(numbers) / int(region.sum()) > self.threshold:
                self.spread["accepted"] += 1
                kind = numbers.index(max(numbers))
                highest[kind] = torch.maximum(highest[kind], scaled)
        value, kind = resize(highest.unflatten(1, self.grid), SIZE).max(0)
        entered = ((value > 0.5) & torch.from_numpy(pseudo["valid"])).numpy()
        changed = entered & (pseudo["labels"] != kind.numpy())
        least = np.float32(self.threshold)
        pseudo["confidence"] = np.where(entered, np.maximum(pseudo["confidence"], least), pseudo["confidence"])
        pseudo["confidence"][changed] = least
        pseudo["labels"] = np.where(changed, kind.numpy(), pseudo["labels"])
        self.spread["entered"] += entered.sum()
        self.spread["changed"] += changed.sum()

    def _divergence(self, logits, weak, known, step):
        total, count = 0.0, 0
        for number, pseudo in enumerate(known):
            target = weak[number].clone()
            if box := mix_box(step, 0, number):
                rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
                target[:, rows, columns] = weak[number - 1][:, rows, columns]
            trained = torch.from_numpy((pseudo["confidence"] >= self.threshold) & pseudo["valid"])
            distance = (target * (target.log() - logits[number].log_softmax(0))).sum(0)
            total, count = total + (distance * trained).sum(), count + pseudo["valid"].sum()
        return total / count


def resize(maps, size):
    return torch.nn.functional.interpolate(maps[None], size, mode="bilinear")[0]
