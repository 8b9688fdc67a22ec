"""Labeled images that are held out of training for a time, on which the weight `calibrated` learns (WEIGHTING.KIND)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch.utils.data import Sampler

from ..utils.errors import InputError
from .sampler import counted_seed

SHARE = 5
"""One of so many labeled images is held out, until the last of so many parts of the schedule."""
FIT_IMAGES = 16
"""The most images of a fit, over all processes; the next fit takes others."""


@dataclass(frozen=True)
class HeldOut:
    """Which labeled images are held out, and when they serve.

    Attributes:
        indices: their places in the list, in its order.
        fits: the steps that are followed by a fit.
        end: the step from which on they train as all others, and there is no further fit.
    """

    indices: tuple[int, ...]
    fits: range
    end: int

    def images_per_process(self, processes: int, micro_batches: int = 1) -> int:
        """The number of images that each process contributes to a fit: equally many in each of its micro-batches."""
        return -(-min(len(self.indices), FIT_IMAGES) // (processes * micro_batches)) * micro_batches


def holds_out(cfg: CfgNode) -> bool:
    """Whether a config holds labeled images out of training."""
    return bool(cfg.WEIGHTING.ENABLED and "calibrated" in cfg.WEIGHTING.KIND and cfg.DATASETS.UNLABELED)


def held_out_images(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> HeldOut:
    """The labeled images that a config holds out, the same in every process.

    The choice is a function of the seed and of the images' names: adding an image to the list changes few others.

    Args:
        cfg: complete, with the schedule in steps.
        records: of DATASETS.TRAIN.

    Raises:
        InputError: there are too few images to hold one out, or no fit comes before they train.
    """
    if len(records) < 2:
        raise InputError(
            f"WEIGHTING.KIND: calibrated holds labeled images out of training, but DATASETS.TRAIN has {len(records)}; "
            "give more, or another kind"
        )
    period, end = cfg.WEIGHTING.CALIBRATED.PERIOD, cfg.SOLVER.MAX_ITER * (SHARE - 1) // SHARE
    fits = range(-(-cfg.FRAMEWORK.BURN_IN // period) * period, end, period)
    if not fits:
        raise InputError(
            f"WEIGHTING.CALIBRATED.PERIOD: no multiple of {period} lies between the burn-in and step {end}, from which "
            "on the held-out images train, so that nothing would be fitted; lower it"
        )
    names = [str(record.get("image_id", Path(record["file_name"]).name)) for record in records]
    drawn = sorted(range(len(records)), key=lambda index: counted_seed(cfg.SEED, "held out", names[index]))
    return HeldOut(tuple(sorted(drawn[: max(1, round(len(records) / SHARE))])), fits, end)


class FitSampler(Sampler[list[int]]):
    """The counters of the held-out samples of one process, an endless iterable of one list a step, mostly empty."""

    def __init__(self, fits: range, images: int, start: int, rank: int = 0, world: int = 1) -> None:
        """Begin with a step.

        Args:
            fits: the steps that have samples.
            images: how many.
            start: the first step.
            rank: this process.
            world: number of processes.
        """
        self.fits, self.images, self.start, self.rank, self.world = fits, images, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count(self.start):
            first = (step // self.fits.step * self.world + self.rank) * self.images
            yield list(range(first, first + self.images)) if step in self.fits else []
