"""PS-MT's step written again from its description, one image after the other; only the network is the product's."""

import copy
import math

import torch
from plain import cross_entropy, follow, label, mix, normal, supervised
from toy import search_direction


class PlainPSMT:
    """Student and two teachers, all in training mode; `settings` are burn_in, turn, ramp, top, step and radius."""

    def __init__(self, student, teachers, threshold, alpha, decay, weigher, **settings):
        self.student, *self.teachers = (copy.deepcopy(model).train() for model in (student, *teachers))
        self.students = [self.student, *self.teachers]
        self.threshold, self.alpha, self.decay, self.weigher = threshold, alpha, decay, weigher
        self.settings = settings

    def losses(self, batch, step):
        """The losses of a step: of labeled images alone in the burn-in."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        strong = [item["strong"][0] for item in labeled]
        weak = [item["image"] for item in labeled]
        since = step - self.settings["burn_in"]
        if since < 0:
            outputs = [_segment(self.student, strong), *(_segment(teacher, weak) for teacher in self.teachers)]
            self._remember(labeled, outputs[1])
            return {"loss_sem_seg": sum(supervised(labeled, logits, None, None) for logits, _ in outputs)}
        active, idle = self._in_turn(since)
        known = self._label(active, idle, unlabeled)
        mixed = [mix(unlabeled, known, i, 0, step) for i in range(len(unlabeled))]
        own = self._perturbed(strong, step)
        logits = self._perturbed([image for image, _ in mixed], step)
        with torch.no_grad():
            self._remember(labeled, _segment(active.eval(), weak))
            active.train()
        ramp = 0.5 * (1 - math.cos(math.pi * min(1, since / self.settings["ramp"])))
        return {
            "loss_sem_seg": supervised(labeled, own, None, None),
            "loss_unsup": self.alpha * ramp * self._consistency(logits, [pseudo for _, pseudo in mixed]),
        }

    def after_step(self, step):
        """The active teacher follows the student."""
        since = step - self.settings["burn_in"]
        if since >= 0:
            follow(self._in_turn(since)[0], self.student, self.decay)

    def _in_turn(self, since):
        turn = since // self.settings["turn"] % 2
        return self.teachers[turn], self.teachers[1 - turn]

    def _remember(self, items, output):
        if self.weigher is None:
            return
        for item, logits, embedding in zip(items, *output, strict=True):
            probability = logits.detach().softmax(0).numpy()
            self.weigher.remember_labeled(embedding.detach().numpy(), probability, item["sem_seg"].numpy())

    def _label(self, active, idle, items):
        with torch.no_grad():
            logits, embedding = _segment(active, [item["image"] for item in items])
            other, _ = _segment(idle, [item["image"] for item in items])
        for image, ours in zip(other, logits, strict=True):
            ranks = image.argsort(dim=0, descending=True).argsort(dim=0)
            for kind in range(len(image)):
                image[kind] = torch.where(ranks[kind] < self.settings["top"], image[kind], ours[kind])
        mean = (logits + other) / 2
        return [label(*found, self.weigher) for found in zip(items, mean, embedding, strict=True)]

    def _perturbed(self, images, step):
        """The student's logits, from features with noise."""
        maps = self.student.sem_seg_head.merge(_features(self.student, images))
        size, start = images[0].shape[1:], search_direction(step, *maps.shape)
        for teacher in self.teachers:
            teacher.eval()
        noise = [self._noise(own.detach(), first, size) for own, first in zip(maps, start, strict=True)]
        for teacher in self.teachers:
            teacher.train()
        return self.student.sem_seg_head.classify(maps + torch.stack(noise), size).logits

    def _noise(self, maps, start, size):
        def log_probability(maps):
            one, two = (teacher.sem_seg_head.classify(maps[None], size).logits[0] for teacher in self.teachers)
            return ((one + two) / 2).log_softmax(0)

        start = (start / start.square().sum().sqrt()).requires_grad_()
        with torch.no_grad():
            clean = log_probability(maps)
        moved = log_probability(maps + self.settings["step"] * start)
        (clean.exp() * (clean - moved)).sum().backward()
        for teacher in self.teachers:
            teacher.zero_grad()
        return self.settings["radius"] * start.grad / start.grad.square().sum().sqrt()

    def _consistency(self, logits, known):
        total, count = 0.0, 0
        for image, pseudo in zip(logits, known, strict=True):
            trained = (pseudo["confidence"] >= self.threshold) & pseudo["valid"]
            assert trained.any() and not trained[pseudo["valid"]].all()
            total = total + cross_entropy(image, pseudo["labels"], trained * pseudo["confidence"] * pseudo["weight"])
            count += trained.sum()
        return total / count


def _features(model, images):
    return model.backbone(torch.stack([normal(model, image) for image in images]))


def _segment(model, images):
    logits, embedding, _ = model.sem_seg_head(_features(model, images), images[0].shape[1:])
    return logits, embedding
