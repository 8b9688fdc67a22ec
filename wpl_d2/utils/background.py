"""Work beside other work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_background(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Iterate in a thread of its own, so that an item is made while the one before it is used.

    Args:
        items: an error of its iteration is raised in the place of the item.
        ahead: how many items are made before they are asked for, at most.
    """
    iterator, end = iter(items), object()
    thread = ThreadPoolExecutor(1)
    try:
        made = deque(thread.submit(next, iterator, end) for _ in range(ahead))
        while (item := made.popleft().result()) is not end:
            made.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]
    finally:
        thread.shutdown(cancel_futures=True)
