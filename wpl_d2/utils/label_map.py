"""The class of each pixel, fast on a CPU too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Pixels whose scores are worked on at once: a block of them stays in a core's cache.
_BLOCK = 2**13


def label_map(scores: Tensor) -> Tensor:
    """The class with the highest score; of equal ones the first.

    On a CPU `Tensor.argmax` over the first axis goes through the classes' planes pixel by pixel, which takes ten times
    as long as these passes over whole rows. They are NumPy's, whose short calls start no threads.

    Args:
        scores: (C, H, W) float, C <= 255; compared as float32.

    Returns:
        (H, W) uint8 on the scores' device.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=0).to(torch.uint8)
    values = scores.detach().float().numpy()
    classes = np.arange(len(values), dtype=np.uint8)[:, None, None]
    labels = np.empty(values.shape[1:], dtype=np.uint8)
    rows = max(1, _BLOCK // max(1, values.shape[2]))
    for top in range(0, values.shape[1], rows):
        part = values[:, top : top + rows]
        # 255 where a class has less than the highest score, else its id: the least is the first winner's. Comparing
        # so leaves NaN, which is less than nothing, with a class too.
        lost = np.less(part, part.max(axis=0)).view(np.uint8)
        np.negative(lost, out=lost)
        np.bitwise_or(lost, classes, out=lost).min(axis=0, out=labels[top : top + rows])
    return torch.from_numpy(labels)
