"""What DAW adds to UniMatch written again from its description: one pixel, class and step after the other."""

import math

import numpy as np
import torch
from unimatch_reference import PlainUniMatch

MOMENTUM = 0.99


class PlainDAW(PlainUniMatch):
    """DAW on a copy of a student; see `PlainUniMatch`."""

    def __init__(self, student, threshold, weigher):
        super().__init__(student, threshold, weigher)
        self.sure = {"labeled": {}, "unlabeled": {}}  # by class
        self.moments = {}  # of the confidence where predictions are right, and where not
        self.thresholds = []

    def label(self, labeled, unlabeled, logits, embedding):
        """As UniMatch's, of the probabilities of aligned classes."""
        ratios = []
        for kind in range(logits.shape[1]):
            known = kind in self.sure["labeled"] and kind in self.sure["unlabeled"]
            ratios.append(self.sure["labeled"][kind] / self.sure["unlabeled"][kind] if known else 1.0)
        self._look(labeled, unlabeled, logits)
        probability = logits.softmax(1) * torch.tensor(ratios)[:, None, None]
        return super().label(labeled, unlabeled, (probability / probability.sum(1, keepdim=True)).log(), embedding)

    def after_step(self, step):
        """The threshold moves."""
        for name, values in (*self.staged["labeled"].items(), *self.staged["unlabeled"].items()):
            stream, kind = name
            move(self.sure[stream], kind, sum(values) / len(values))
        for right, values in self.staged["moments"].items():
            move(self.moments, (right, 1), sum(values) / len(values))
            move(self.moments, (right, 2), sum(value**2 for value in values) / len(values))
        if len(self.moments) == 4:
            self.threshold = min(1.0, max(1 / 3, self._crossing()))
        self.thresholds.append(self.threshold)

    def _look(self, labeled, unlabeled, logits):
        self.staged = {"labeled": {}, "unlabeled": {}, "moments": {}}
        for number, item in enumerate([*labeled, *unlabeled]):
            confidence, kinds = (field.numpy() for field in logits[number].softmax(0).max(0))
            stream = "labeled" if number < len(labeled) else "unlabeled"
            known = item["sem_seg"].numpy() != 255 if stream == "labeled" else item["valid"].numpy()
            for y, x in zip(*known.nonzero(), strict=True):
                self.staged[stream].setdefault((stream, int(kinds[y, x])), []).append(float(confidence[y, x]))
                if stream == "labeled":
                    right = bool(kinds[y, x] == item["sem_seg"][y, x])
                    self.staged["moments"].setdefault(right, []).append(float(confidence[y, x]))

    def _crossing(self):
        """Where the right ones become more likely than the wrong ones, on a fine grid."""
        (right, right_var), (wrong, wrong_var) = (
            (self.moments[side, 1], self.moments[side, 2] - self.moments[side, 1] ** 2) for side in (True, False)
        )
        grid = np.linspace(-2, 3, 500_001)
        ahead = log_density(grid, right, right_var) > log_density(grid, wrong, wrong_var)
        rises = grid[1:][ahead[1:] & ~ahead[:-1]]
        assert len(rises) == 1
        return float(rises[0])


def log_density(value, mean, variance):
    return -((value - mean) ** 2) / (2 * variance) - math.log(variance) / 2


def move(means, key, value):
    means[key] = value if key not in means else MOMENTUM * means[key] + (1 - MOMENTUM) * value
