"""U2PL's step written again from its description: lists of cells and loops; only the networks are the product's."""

import copy

import numpy as np
import torch
from plain import cross_entropy, label, supervised
from toy import CLASSES, contrast_samples, mix_box

TEMPERATURE = 0.5


class PlainU2PL:
    """U2PL on copies of a student and a teacher; `weigher`, a `PlainWeigher` or None, gets each step's embeddings.

    All networks, the framework's too, go on in float64: a rounding error that brings a single pixel to the other side
    of a percentile would change which anchors and negatives are drawn.
    """

    def __init__(self, framework, weigher, **settings):
        framework.student.double(), framework.teacher.double()
        self.student, self.teacher = copy.deepcopy(framework.student), copy.deepcopy(framework.teacher)
        self.weigher = weigher
        # steps, burn_in, copy_steps, max_decay, sizes, anchors, negatives, keys, ranks
        self.__dict__.update(settings)
        self.slots = [[None] * size for size in self.sizes]
        self.pushed = [0] * CLASSES
        self.new = [[] for _ in range(CLASSES)]

    def losses(self, batch, step):
        """The losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"] if step >= self.burn_in else []
        size = labeled[0]["image"].shape[1:]
        known = []
        for item in unlabeled:
            logits, embedding, _ = self.run(self.teacher.eval(), [item["image"]], size)
            known.append(label(item, logits[0], embedding[0], self.weigher))
        mixed = [self.mix(unlabeled, known, number, step) for number in range(len(unlabeled))]
        images = [item["image"] for item in labeled] + [image for image, _ in mixed]
        logits, embedding, ours = self.run(self.student, images, size)
        losses = {"loss_sem_seg": supervised(labeled, logits, embedding, self.weigher)}
        if not unlabeled:
            return losses | {"loss_contrast": torch.tensor(0.0)}
        with torch.no_grad():
            judged, _, theirs = self.run(self.teacher.train(), images, size)
        probability = judged.softmax(1).numpy()
        pseudo = [fields for _, fields in mixed]
        doubt = [-(p * np.log(p)).sum(0) for p in probability[len(labeled) :]]
        values = np.concatenate([own[fields["valid"]] for own, fields in zip(doubt, pseudo, strict=True)])
        percent = 20 * (1 - step / self.steps)
        low, high = np.percentile(values, percent), np.percentile(values, 100 - percent)
        total, kept = 0.0, 0
        for image, fields, own in zip(logits[len(labeled) :], pseudo, doubt, strict=True):
            trains = fields["valid"] & (own < high)
            total = total + cross_entropy(image, fields["labels"], trains * fields["weight"])
            kept += trains.sum()
        assert 0 < kept < len(values)
        maps = [(item["sem_seg"].numpy(), item["sem_seg"].numpy() != 255, None) for item in labeled]
        maps += [
            (fields["labels"], fields["valid"] & (own <= low), fields["valid"] & (own >= high))
            for fields, own in zip(pseudo, doubt, strict=True)
        ]
        contrast = self.contrast(self.cells(maps, probability, ours, theirs), step)
        return losses | {"loss_unsup": total / kept * len(values) / kept, "loss_contrast": contrast}

    def run(self, model, images, size):
        images = torch.stack([(image.double() - model.pixel_mean) / model.pixel_std for image in images])
        return model.sem_seg_head(model.backbone(images), size)

    def mix(self, unlabeled, known, number, step):
        """A strong view with the box of the image after it pasted in, and what is known about its pixels."""
        image = unlabeled[number]["strong"][0].clone()
        fields = {name: field.copy() for name, field in known[number].items()}
        if box := mix_box(step, 0, number):
            rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
            following = (number + 1) % len(unlabeled)
            image[:, rows, columns] = unlabeled[following]["strong"][0][:, rows, columns]
            for name, field in known[following].items():
                fields[name][rows, columns] = field[rows, columns]
        return image, fields

    def cells(self, maps, probability, ours, theirs):
        """One dict for each cell of the representation."""
        found = []
        for image, (labels, certain, uncertain) in enumerate(maps):
            height, width = labels.shape
            h, w = ours.shape[2:]
            for y in range(h):
                for x in range(w):
                    row, column = int((y + 0.5) * height / h), int((x + 0.5) * width / w)
                    cell = {"label": labels[row, column], "certain": certain[row, column], "labeled": uncertain is None}
                    cell["uncertain"] = labels[row, column] != 255 if uncertain is None else uncertain[row, column]
                    cell["probability"] = probability[image, :, row, column]
                    found.append(cell | {"ours": ours[image, :, y, x], "theirs": theirs[image, :, y, x]})
        return found

    def contrast(self, cells, step):
        """The mean of the present classes' losses; the new negatives wait for the end of the step."""
        which = contrast_samples(step, CLASSES, self.anchors)
        others = contrast_samples(step, CLASSES, self.anchors, self.negatives)
        first = contrast_samples(step, CLASSES, 1)
        total, present = torch.tensor(0.0), 0
        for kind in range(CLASSES):
            certain = [cell for cell in cells if cell["certain"] and cell["label"] == kind]
            anchors = [cell for cell in certain if cell["probability"][kind] > 0.3]
            held = min(self.pushed[kind], self.sizes[kind])
            present += len(certain) > 0
            if anchors and held:
                positive = torch.stack([cell["theirs"] for cell in certain]).mean(0)
                for number in range(self.anchors):
                    anchor = anchors[int(which[kind, number] * len(anchors))]["ours"]
                    rows = [self.slots[kind][int(sample * held)] for sample in others[kind, number]]
                    powers = [(torch.cosine_similarity(anchor, row, dim=0) / TEMPERATURE).exp() for row in rows]
                    near = (torch.cosine_similarity(anchor, positive, dim=0) / TEMPERATURE).exp()
                    total = total - (near / (near + sum(powers))).log() / self.anchors
            negatives = [cell["theirs"] for cell in cells if self.is_negative(cell, kind)]
            spread = max(len(negatives), self.keys)
            chosen = [int(np.float32(k + first[kind, 0]) / np.float32(self.keys) * spread) for k in range(self.keys)]
            self.new[kind] = [negatives[place] for place in chosen if place < len(negatives)]
        return total / present if present > 1 else total * 0

    def is_negative(self, cell, kind):
        """Of another class and almost taken for this one, or uncertain and surely not of this class."""
        rank = sum(other > cell["probability"][kind] for other in cell["probability"])
        if not cell["uncertain"]:
            return False
        if cell["labeled"]:
            return cell["label"] != kind and rank < self.ranks[0]
        return self.ranks[0] <= rank < self.ranks[1]

    def after_step(self, step):
        """Queues and teacher after a step."""
        for kind in range(CLASSES):
            for row in self.new[kind]:
                half = torch.from_numpy((row / row.norm()).numpy().astype(np.float16)).double()
                self.slots[kind][self.pushed[kind] % self.sizes[kind]] = half
                self.pushed[kind] += 1
            self.new[kind] = []
        since = step - self.burn_in
        decay = 0.0 if since < self.copy_steps else min(1 - 1 / (since + 1), self.max_decay)
        with torch.no_grad():
            for theirs, own in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                theirs.copy_(decay * theirs + (1 - decay) * own)
            for theirs, own in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
                if since < 0:
                    theirs.copy_(own)
