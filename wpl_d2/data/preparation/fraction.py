"""New splits: a fraction of the training list, chosen by a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...structures import IGNORE
from ...utils.errors import InputError
from ..datasets.folder import Description
from ..image_io import read_mask
from .benchmark import Benchmark
from .files import parallel_map
from .splits import check_list_writable, read_list_keys, unlabeled_keys, write_list

_ATTEMPTS = 1000


def parse_fraction(text: str) -> Fraction:
    """Parse "1/20" or "0.05".

    Raises:
        InputError: it is not a number between 0 and 1.
    """
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(0)
    if not 0 < fraction < 1:
        raise InputError(f"--fraction: {text!r} is not a fraction of the images; give one such as 1/20")
    return fraction


def new_split(
    benchmark: Benchmark, description: Description, fraction: Fraction, seed: int, balanced: bool, workers: int
) -> str:
    """Write the labeled and the unlabeled list of a new split, both or none.

    The number of labeled images is a fraction of the whole training list, rounded up as in the published splits. They
    are chosen from the images that exist with their masks.

    Args:
        benchmark: the data set.
        description: of the same data set, with the folder of the data as root.
        fraction: of the training list to be labeled.
        seed: chooses the images.
        balanced: whether to balance the classes in the masks (see `choose_balanced`).
        workers: number of processes that read masks.

    Returns:
        the split's name, such as "1_20_seed0".

    Raises:
        InputError: there is no training list, too few of its images have masks, no choice has `Benchmark.min_ratio`, or
            another split of that name exists.
    """
    root = description.root
    masks = {
        next(iter(benchmark.parse_keys(record["image_id"]) or [])): Path(record["sem_seg_file_name"])
        for record in description.records("train")
        if "sem_seg_file_name" in record and Path(record["file_name"]).is_file()
    }
    train = read_list_keys(benchmark, root, "train")
    count = math.ceil(len(train) * fraction)
    if not 0 < count <= len(masks):
        raise InputError(
            f"--fraction: {fraction} of {len(train)} images is {count}, but {len(masks)} are there with masks; "
            f"complete the data set"
        )
    if balanced or benchmark.min_ratio:
        keys = sorted(masks)
        found = parallel_map(_classes_of, [masks[key] for key in keys], workers, "classes")
        classes = dict(zip(keys, found, strict=True))
        if balanced:
            labeled = choose_balanced(classes, count, seed)
        else:
            labeled = choose_showing(classes, count, seed, description.object_ids, benchmark.min_ratio)
    else:
        labeled = shuffle_by_hash(masks, seed)[:count]
    name = f"{fraction.numerator}_{fraction.denominator}_{'balanced_' if balanced else ''}seed{seed}"
    lists = {f"{name}_labeled": set(labeled), f"{name}_unlabeled": unlabeled_keys(benchmark, root, set(labeled))}
    # Both before either is written: a new list beside an old one would share images with it.
    for list_name, images in lists.items():
        check_list_writable(benchmark, root, list_name, images)
    for list_name, images in lists.items():
        write_list(benchmark, root, list_name, images)
    return name


def shuffle_by_hash(keys: Iterable[str], seed: int | str) -> list[str]:
    """Sort by a hash of seed and key: the same on every machine and with every library version.

    The order of two images does not depend on others, so a smaller split is a subset of a larger one.
    """
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())


def choose_balanced(classes: Mapping[str, frozenset[int]], count: int, seed: int) -> list[str]:
    """Choose images one by one, each for the class that the fewest chosen images show.

    Args:
        classes: the classes in each image.
        count: how many to choose.
        seed: determines the order of the images of a class.
    """
    order = shuffle_by_hash(classes, seed)
    waiting = {
        c: iter([key for key in order if c in classes[key]]) for c in sorted(frozenset().union(*classes.values()))
    }
    shown = dict.fromkeys(waiting, 0)
    chosen: dict[str, None] = {}
    while len(chosen) < count and shown:
        rarest = min(shown, key=lambda c: shown[c])
        key = next((key for key in waiting[rarest] if key not in chosen), None)
        if key is None:
            del shown[rarest]
            continue
        chosen[key] = None
        for c in classes[key] & shown.keys():
            shown[c] += 1
    rest = (key for key in order if key not in chosen)  # with no class in their masks
    return [*chosen, *rest][:count]


def choose_showing(
    classes: Mapping[str, frozenset[int]], count: int, seed: int, wanted: Collection[int], ratio: Fraction
) -> list[str]:
    """Choose images at random, repeatedly, until enough of them show each of the `wanted` classes.

    Args:
        classes: the classes in each image.
        count: how many to choose.
        seed: chooses the images.
        wanted: class ids.
        ratio: least ratio of the chosen images that show each wanted class.

    Raises:
        InputError: no choice succeeds.
    """
    for attempt in range(_ATTEMPTS):
        chosen = shuffle_by_hash(classes, f"{seed}.{attempt}")[:count]
        if all(sum(c in classes[key] for key in chosen) >= ratio * count for c in wanted):
            return chosen
    raise InputError(
        f"--fraction: in none of {_ATTEMPTS} draws of {count} images {ratio} of them show each of the objects; take a "
        f"larger fraction, or --balanced"
    )


def _classes_of(file: Path) -> frozenset[int]:
    return frozenset(np.flatnonzero(np.bincount(read_mask(file).ravel())).tolist()) - {IGNORE}
