"""Work on many items in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_MAX_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], title: str, quiet: bool = False
) -> Iterator[_Result]:
    """Results in the order of the items, which are images or files of images.

    Threads, not processes: decoders release Python's lock, nothing is forked beside the threads of other libraries, and
    after Ctrl-C each thread ends with the item that it is reading.

    Args:
        work: is called with each item.
        items: to work on.
        title: of the progress bar, which is there when it takes longer than two seconds.
        quiet: without a progress bar.
    """
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        yield from tqdm(pool.map(work, items), title, len(items), unit="image", delay=2, disable=quiet)
    finally:
        pool.shutdown(cancel_futures=True)
