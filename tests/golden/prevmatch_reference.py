"""PrevMatch's losses written again from its description; only the network is the product's."""

import copy

import torch
from plain import label, normal
from toy import past_members
from unimatch_reference import PlainUniMatch


class PlainPrevMatch(PlainUniMatch):
    """UniMatch, whose student joins `past` after each step; of the last `size` some label too."""

    def __init__(self, student, threshold, past_threshold, size, steps, weigher):
        super().__init__(student, threshold, weigher)
        self.past_threshold, self.size, self.steps = past_threshold, size, steps
        self.past = {}

    def after_step(self, step):
        """The student takes the place of the oldest one."""
        self.past[step % self.size] = copy.deepcopy(self.student).eval()

    def losses(self, batch, step):
        """UniMatch's three losses, with labels of both kinds."""
        losses, factor = super().losses(batch, step), self._factor(step)
        return {name: 2 * loss / (2 + factor) for name, loss in losses.items()}

    def kinds_of_labels(self, labeled, unlabeled, logits, embedding, step):
        """The student's own labels, and those of its past."""
        kinds = super().kinds_of_labels(labeled, unlabeled, logits, embedding, step)
        if not self.past:
            return kinds
        images = torch.stack([normal(self.student, item["image"]) for item in unlabeled])
        with torch.no_grad():
            total = sum(
                weight * self.past[place].sem_seg_head(self.past[place].backbone(images), images.shape[2:]).logits
                for place, weight in past_members(step, len(self.past)).items()
            )
        known = [label(item, image, None, None) for item, image in zip(unlabeled, total, strict=True)]
        if self.weigher:
            for own, cells in zip(known, embedding[len(labeled) :], strict=False):
                own["weight"] = self.weigher.weights(cells.detach().numpy(), own["labels"])
        return [*kinds, (known, self.past_threshold, self._factor(step))]

    def _factor(self, step):
        if not self.past:
            return 0.0
        half = self.steps / 2
        return step / half if step < half else 1 - (step - half) / half
