"""Choosing validation images that show every class in proportion, whole groups at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..preparation.fraction import shuffle_by_hash

MAX_VAL = 500
"""More validation images cost time and tell little more."""


def choose_validation(
    classes: Mapping[str, frozenset[int]], groups: Mapping[str, str], share: float, seed: int
) -> list[str]:
    """Choose groups of images until they hold a share of them, and of the images of each class.

    Groups are taken one by one, each the one that brings most of what is missing. The last group that shows a class
    stays with training, unless no group could be chosen then.

    Args:
        classes: the classes in each image.
        groups: the group of each image.
        share: of the images.
        seed: breaks ties.

    Returns:
        the chosen images, in the order of `classes`; empty if there is one group alone.
    """
    names = shuffle_by_hash(set(groups[image] for image in classes), seed)
    index = {name: i for i, name in enumerate(names)}
    ids = {c: i for i, c in enumerate(sorted(frozenset().union(*classes.values())))}
    # Images of each group, and those that show each class; the last column counts all.
    counts = np.zeros((len(names), len(ids) + 1))
    for image, shown in classes.items():
        counts[index[groups[image]], [*(ids[c] for c in shown), len(ids)]] += 1
    total = counts.sum(axis=0)
    wanted = np.maximum(1, total * min(share, MAX_VAL / len(classes)))
    chosen = np.zeros(len(names), dtype=bool)
    while counts[chosen, -1].sum() < round(wanted[-1]) and chosen.sum() < len(names) - 1:
        missing = np.maximum(0, wanted - counts[chosen].sum(axis=0))
        gain = (np.minimum(counts, missing) / wanted).sum(axis=1) - (np.maximum(0, counts - missing) / total).sum(
            axis=1
        )
        rest = counts[~chosen].sum(axis=0) - counts
        takes_all = ((rest <= 0) & (counts > 0)).any(axis=1)
        free = ~chosen & ~takes_all
        if chosen.any() and not free.any():
            break
        chosen[np.where(free if free.any() else ~chosen, gain, -np.inf).argmax()] = True
    return [image for image in classes if chosen[index[groups[image]]]]
