"""AEL's step written again from its description, image by image; only the networks are the product's."""

import copy
import math

import numpy as np
import torch
from plain import cross_entropy, label, normal
from scipy import ndimage
from toy import CLASSES, SIZE, toy_batch

IMAGES, AREA, PART, MOMENTUM, THRESHOLD = 4, 0.1, 0.05, 0.5, 0.45
OHEM, MIN_KEPT = 0.6, 2000


def ael_batch():
    """The toy's batch with a second image to paste from, padding, and two more unlabeled images as partners."""
    batch = toy_batch()
    for item in batch["labeled"]:
        item["valid"] = torch.ones(SIZE, dtype=torch.bool)
    first, second = batch["labeled"]
    second["valid"][:, 58:] = False
    second["sem_seg"][:, 58:] = 255
    first["paste"] = {
        "image": second["image"].flip(1),
        "sem_seg": second["sem_seg"].flip(0),
        "valid": second["valid"].flip(0),
    }
    batch["partners"] = []
    for number, item in enumerate(batch["unlabeled"]):
        item["index"] = number
        partner = {key: item[key] for key in ("valid", "detections")}
        partner |= {"image": item["image"].flip(2), "index": 2 + number}
        batch["partners"].append(partner)
    return batch


def numbers(step, call, shape):
    """What is drawn by the call-th call of a step."""
    return np.random.default_rng([4, step, call]).random(shape, dtype=np.float32)


class FixedRand:
    """In place of `torch.rand`: `numbers`, counted in each of a framework's steps."""

    def __init__(self):
        self.framework, self.step, self.call, self.draw = None, -1, 0, torch.rand

    def __call__(self, *shape, **options):
        if self.framework is None:
            return self.draw(*shape, **options)
        if self.framework.iteration != self.step:
            self.step, self.call = self.framework.iteration, 0
        shape = tuple(shape[0]) if shape and not isinstance(shape[0], int) else shape
        self.call += 1
        return torch.from_numpy(np.asarray(numbers(self.step, self.call - 1, shape)))


class PlainAEL:
    """AEL on copies of a student and a teacher; `weigher`, a `PlainWeigher` or None, gets each step's embeddings."""

    def __init__(self, framework, weigher):
        self.student, self.teacher = copy.deepcopy(framework.student), copy.deepcopy(framework.teacher)
        self.teacher.train()
        self.weigher = weigher
        self.confidence = [0.0] * CLASSES
        self.present = [[False] * CLASSES for _ in range(IMAGES)]
        self.queue = [[(None, None)] * 2, [(None, None)] * 2]

    def losses(self, batch, step):
        """The four losses of a step."""
        labeled = [self.pasted(item, self.class_of(numbers(step, 0, 1)[0], root=True)) for item in batch["labeled"]]
        images = torch.stack([normal(self.student, item["image"]) for item in labeled])
        features = self.student.backbone(images)
        logits, embedding, _ = self.student.sem_seg_head(features, SIZE)
        targets = [item["sem_seg"].numpy() for item in labeled]
        self.see_probabilities(logits, targets)
        with torch.no_grad():
            taught = self.teacher.sem_seg_head(self.teacher.backbone(images), SIZE).logits
        if self.weigher is not None:
            for number, target in enumerate(targets):
                probability = logits[number].detach().softmax(0).numpy()
                self.weigher.remember_labeled(embedding[number].detach().numpy(), probability, target)
        known = [label(item, taught[number], None, None) for number, item in enumerate(labeled)]
        mixed = self.mixed(batch, step)
        inputs = torch.stack([normal(self.student, image) for image, _ in mixed])
        strong = self.student.sem_seg_head(self.student.backbone(inputs), SIZE).logits
        self.choose_partners(step)
        return {
            "loss_sem_seg": hard_mean(logits, targets),
            "loss_aux": 0.4 * hard_mean(self.student.aux_head(features, SIZE), targets),
            "loss_consistency": self.consistency(logits, known, numbers(step, 5, (2, *SIZE))),
            "loss_unsup": self.consistency(strong, [pseudo for _, pseudo in mixed], numbers(step, 6, (2, *SIZE))),
        }

    def class_of(self, sample, root):
        """The class that a number in [0, 1) stands for."""
        uncertainties = [1 - c for c in self.confidence]
        powers = [math.exp(math.sqrt(value) if root else value) for value in uncertainties]
        return next(k for k in range(CLASSES) if sample < sum(powers[: k + 1]) / sum(powers))

    def pasted(self, item, kind):
        if "paste" not in item:
            return item
        result = {key: item[key].clone() for key in ("image", "sem_seg", "valid")}
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                if item["paste"]["sem_seg"][y, x] == kind:
                    for key, field in result.items():
                        field[..., y, x] = item["paste"][key][..., y, x]
        return result

    def see_probabilities(self, logits, targets):
        probability = logits.detach().softmax(1).numpy()
        self.seen = []
        for kind in range(CLASSES):
            values = [
                p for image, target in zip(probability, targets, strict=True) for p in image[kind][target == kind]
            ]
            self.seen.append(np.mean(values) if values else None)

    def mixed(self, batch, step):
        """Each unlabeled image with a box of its partner, and what is known about the pixels."""
        items = [*batch["unlabeled"], *batch["partners"]]
        images = torch.stack([normal(self.teacher, item["image"]) for item in items])
        with torch.no_grad():
            logits, embedding, _ = self.teacher.sem_seg_head(self.teacher.backbone(images), SIZE)
        known = [label(item, logits[i], embedding[i], self.weigher) for i, item in enumerate(items)]
        self.labels = {item["index"]: pseudo["labels"] for item, pseudo in zip(items, known, strict=True)}
        result = []
        for number in range(2):
            image = items[number]["image"].clone()
            pseudo = {name: field.copy() for name, field in known[number].items()}
            _, kind = self.queue[0][number]
            rows, columns = self.box(known[2 + number]["labels"], kind, number, step)
            image[:, rows, columns] = items[2 + number]["image"][:, rows, columns]
            for name, field in known[2 + number].items():
                pseudo[name][rows, columns] = field[rows, columns]
            result.append((image, pseudo))
        return result

    def box(self, labels, kind, number, step):
        """Around a connected part of a class, seen on every fourth pixel, or half of the image."""
        cells = labels[2::4, 2::4]
        parts, count = ndimage.label(cells == kind if kind is not None else 0 * cells, np.ones((3, 3)))
        large = [part for part in range(1, count + 1) if (parts == part).sum() > PART * cells.size]
        # In the order of their last pixels.
        large.sort(key=lambda part: np.flatnonzero(parts == part)[-1])
        if large:
            chosen = parts == large[int(numbers(step, 1, 2)[number] * len(large))]
            rows, columns = ndimage.find_objects(chosen.astype(int))[0]
            return slice(4 * rows.start, 4 * rows.stop), slice(4 * columns.start, 4 * columns.stop)
        width, top, left = numbers(step, 2, (3, 2, 1))[:, number, 0]
        w = int(SIZE[1] * (1 + width) / 2)
        h = min(round(SIZE[0] * SIZE[1] / 2 / w), SIZE[0])
        y, x = int(top * (SIZE[0] - h + 1)), int(left * (SIZE[1] - w + 1))
        return slice(y, y + h), slice(x, x + w)

    def consistency(self, logits, known, noise):
        """Squared confidence times loss over squared confidence, both of the pixels that are sampled."""
        uncertainties = np.array([1 - c for c in self.confidence])
        total, count = 0.0, 0.0
        for image, pseudo, own in zip(logits, known, noise, strict=True):
            kept = own < (uncertainties / max(uncertainties))[image.detach().argmax(0).numpy()]
            factor = pseudo["confidence"] ** 2 * kept * pseudo["valid"] * pseudo["weight"]
            sure = pseudo["confidence"] >= THRESHOLD
            assert kept.any() and sure[pseudo["valid"]].any() and not sure[pseudo["valid"]].all()
            total = total + cross_entropy(image, pseudo["labels"], (factor * sure).astype(float))
            count += factor.sum()
        return total / count

    def choose_partners(self, step):
        """Draw two classes, and for each an image that showed it before this step."""
        first, second = numbers(step, 4, (2, 2))
        chosen = []
        for sample, place in zip(first, second, strict=True):
            kind = self.class_of(sample, root=False)
            showing = [i for i in range(IMAGES) if self.present[i][kind]] or range(IMAGES)
            chosen.append((showing[int(place * len(showing))], kind))
        self.queue.append(chosen)

    def after_step(self, step):
        """The banks, the queue and the teacher after a step."""
        for kind, value in enumerate(self.seen):
            if value is not None:
                self.confidence[kind] = MOMENTUM * self.confidence[kind] + (1 - MOMENTUM) * float(value)
        for index, labels in self.labels.items():
            self.present[index] = [(labels == kind).mean() >= AREA for kind in range(CLASSES)]
        self.queue.pop(0)
        decay = min(1 - 1 / (step + 1), 0.999)
        with torch.no_grad():
            for theirs, own in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                theirs.copy_(decay * theirs + (1 - decay) * own)


def hard_mean(logits, targets):
    """OHEM: the mean cross entropy of the labeled pixels whose class has a small probability."""
    probability = logits.detach().softmax(1).numpy()
    values = [probability[i, kind][target == kind] for i, target in enumerate(targets) for kind in range(CLASSES)]
    values = np.sort(np.concatenate(values))
    limit = max(OHEM, values[MIN_KEPT - 1])
    total, count = 0.0, 0
    for own, image, target in zip(probability, logits, targets, strict=True):
        kept = np.zeros(SIZE)
        for kind in range(CLASSES):
            kept += (target == kind) & (own[kind] <= limit)
        assert 0 < kept.sum() < (target != 255).sum()
        total, count = total + cross_entropy(image, target, kept), count + kept.sum()
    return total / count
