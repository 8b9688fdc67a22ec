"""Micro-batches: a step's batch in parts, the gradients of which are added up (SOLVER.GRAD_ACCUMULATION)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from ..structures import IGNORE

Items = list[dict[str, Any]]
Value = TypeVar("Value", Tensor, float)


class MicroBatch(NamedTuple):
    """Which part of its process's batch of a step a forward gets.

    Attributes:
        first: place of its first unlabeled image among the step's.
        images: its share of the images.
        labeled: its share of the labeled pixels.
        unlabeled: its share of the valid pixels of unlabeled images.
    """

    first: int = 0
    images: float = 1.0
    labeled: float = 1.0
    unlabeled: float = 1.0


WHOLE = MicroBatch()


def split_batch(batch: Mapping[str, Any], count: int) -> Iterator[tuple[dict[str, Items], MicroBatch]]:
    """Divide the batch of a step into micro-batches of equally many images.

    Args:
        batch: a `TrainBatch`, on the CPU; the number of each stream's items is a multiple of `count`.
        count: number of micro-batches.

    Yields:
        the items of each, and what part of the step they are.
    """
    if count == 1:
        yield dict(batch), WHOLE
        return
    labeled = [int((item["sem_seg"] != IGNORE).sum()) for item in batch["labeled"]]
    unlabeled = [int(item["valid"].sum()) for item in batch["unlabeled"]]
    for number in range(count):
        shares = (_share(pixels, _part(pixels, number, count)) for pixels in (labeled, unlabeled))
        first = number * (len(unlabeled) // count)
        items = {stream: _part(items, number, count) for stream, items in batch.items()}
        yield items, MicroBatch(first, 1 / count, *shares)


def add_to(sums: dict[str, Value], values: Mapping[str, Value]) -> None:
    """Add values to the sums of the same names, in place."""
    for name, value in values.items():
        sums[name] = sums[name] + value if name in sums else value


def scaled(values: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Values times a factor, without an operation where that is 1."""
    return dict(values) if factor == 1 else {name: value * factor for name, value in values.items()}


def _part(values: Sequence[Any], number: int, count: int) -> Any:
    size = len(values) // count
    return values[number * size : (number + 1) * size]


def _share(pixels: Sequence[int], part: Sequence[int]) -> float:
    return sum(part) / max(1, sum(pixels))
