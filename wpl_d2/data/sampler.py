"""Counted randomness: every sample is a function of (seed, stream, counter), in whichever process and order it is made.

A counter numbers the samples of a stream over all steps and processes. Training can therefore start at any step, with
any number of workers, and get the same samples.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset, Sampler

from ..utils.errors import InputError
from .image_io import UnreadableImageError

_logger = logging.getLogger(__name__)
MAX_UNREADABLE = 0.01
"""Training stops if a larger ratio of a list's images is unreadable; one image may always be."""


def counted_seed(*key: int | str) -> int:
    """A 63-bit seed derived from `key`, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside the block, and restore their states after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # Not torch.manual_seed, which would change the generators of all devices too.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class CountSampler(Sampler[int]):
    """The endless counters of one process: start + rank, start + rank + world, ..."""

    def __init__(self, start: int, rank: int = 0, world: int = 1) -> None:
        """Set where to start.

        Args:
            start: number of samples that all processes drew before.
            rank: this process.
            world: number of processes.
        """
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[int]:
        yield from itertools.count(self.start + self.rank, self.world)


class PartnerSampler(Sampler[list[tuple[int, int]]]):
    """The keys (counter, index) for `PartnerDataset` of one process, an endless iterable of one list a step."""

    def __init__(
        self, partner_indices: deque[list[int]], start: int, total: int, rank: int = 0, world: int = 1
    ) -> None:
        """Begin with a step.

        Args:
            partner_indices: those of the steps to come; each step takes the first list, the trainer appends.
            start: the first step.
            total: the most partners of a step over all processes; `total // world` a process.
            rank: this process.
            world: number of processes.
        """
        self.partner_indices, self.start, self.total = partner_indices, start, total
        self.offset = rank * (total // world)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in itertools.count(self.start):
            first = step * self.total + self.offset
            yield [(first + place, index) for place, index in enumerate(self.partner_indices.popleft())]


class CountedDataset(Dataset[dict[str, Any]]):
    """Samples by counter: a new permutation of the list in every epoch, and a seed for every sample."""

    def __init__(
        self,
        dataset_dicts: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        seed: int,
        stream: str,
        skip: bool = False,
        unreadable: torch.Tensor | None = None,
        held_out: Collection[int] = (),
        until: int = 0,
    ) -> None:
        """Prepare the samples.

        Args:
            dataset_dicts: the list; may be shorter than a batch.
            mapper: makes a sample from a dataset dict, drawing from the global generators.
            seed: the run's seed.
            stream: name of the stream, so that two streams of a run differ.
            skip: take another image in place of one that cannot be read.
            unreadable: that of another stream of the same list, to skip what either of them cannot read.
            held_out: places in the list of images that no counter below `until` has.
            until: see `held_out`; a new epoch begins there.

        Raises:
            InputError: the list is empty.
        """
        if not dataset_dicts:
            raise InputError(f"{stream} stream: has no images; name a list that has some")
        self.records = DatasetFromList(list(dataset_dicts), copy=False, serialize=True)
        self.mapper = mapper
        self.seed = seed
        self.stream = stream
        self.skip = skip
        if unreadable is None:
            # In shared memory: an image that one worker cannot read is skipped by all.
            unreadable = torch.zeros(len(dataset_dicts), dtype=torch.bool).share_memory_()
        self.unreadable = unreadable
        self.until = until
        self._early = np.setdiff1d(np.arange(len(dataset_dicts)), list(held_out))
        self._epoch, self._order = (False, -1), np.empty(0, dtype=np.int64)

    def __getitem__(self, counter: int) -> dict[str, Any]:
        """The sample of a counter >= 0; see `sample`."""
        return self.sample(counter, self._index(counter))

    def sample(self, counter: int, index: int) -> dict[str, Any]:
        """A sample of one image, with its place in the list as `index`.

        Args:
            counter: seeds the sample.
            index: of the image; with `skip`, another image takes the place of an unreadable one.

        Raises:
            UnreadableImageError: the image cannot be read, and `skip` is off.
            InputError: too many images cannot be read.
        """
        for attempt in itertools.count():
            if attempt:
                other = counted_seed(self.seed, self.stream, counter, attempt, "other image")
                index = other % len(self.records)
            if not self.unreadable[index]:
                try:
                    with seeded(counted_seed(self.seed, self.stream, counter, attempt)):
                        return {**self.mapper(self.records[index]), "index": index}
                except UnreadableImageError as error:
                    if not self.skip:
                        raise
                    self._mark_unreadable(index, error)
            self._check_limit(index)
        raise AssertionError("unreachable")

    def _index(self, counter: int) -> int:
        early = counter < self.until
        places = self._early if early else np.arange(len(self.records))
        number, position = divmod(counter if early else counter - self.until, len(places))
        if (early, number) != self._epoch:
            generator = np.random.default_rng(counted_seed(self.seed, self.stream, "epoch", number))
            self._epoch, self._order = (early, number), places[generator.permutation(len(places))]
        return int(self._order[position])

    def _mark_unreadable(self, index: int, error: UnreadableImageError) -> None:
        self.unreadable[index] = True
        _logger.warning("Skipped, %d of %d so far: %s", self.unreadable.sum(), len(self.records), error)

    def _check_limit(self, index: int) -> None:
        count, total = int(self.unreadable.sum()), len(self.records)
        if count > max(1, MAX_UNREADABLE * total) or count == total:
            raise InputError(
                f"{self.stream} stream: {count} of {total} images cannot be read, such as "
                f"{self.records[index]['file_name']}; restore them or take them out of the list"
            )


class ClassBalancedDataset(CountedDataset):
    """Images by classes: each sample shows a class that was drawn, all being equally likely, with replacement."""

    def __init__(self, *args: Any, shown: np.ndarray, **others: Any) -> None:
        """Prepare the samples.

        Args:
            args: those of `CountedDataset`, with a list of N images.
            shown: (N, C) bool, which images show which classes; images that show none are not drawn.
            others: further arguments of `CountedDataset`.
        """
        super().__init__(*args, **others)
        every = np.arange(len(shown))
        self._late, self._soon = (
            [places[images] for images in shown[places].T if images.any()] for places in (every, self._early)
        )

    def _index(self, counter: int) -> int:
        images = self._soon if counter < self.until else self._late
        generator = np.random.default_rng(counted_seed(self.seed, self.stream, "class", counter))
        return int(generator.choice(images[generator.integers(len(images))]))


class PartnerDataset(CountedDataset):
    """Samples of chosen images: a key is (counter, index)."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:  # type: ignore[override]
        """The sample of an image of the list; see `sample`."""
        return self.sample(*key)
