"""The processes that read images for the one that trains or evaluates."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

from torch.utils.data import DataLoader

from ..signals import STOP_SIGNALS, end_with_parent, held_back, release


class WorkerLoader(DataLoader):
    """A `DataLoader` whose workers outlast every signal to the run, and end with the process that they work for.

    That process still needs them to finish the step, and tells them itself when to end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `DataLoader`."""
        super().__init__(*args, **kwargs)
        self.worker_init_fn = _begin

    def __iter__(self) -> Any:
        """Start the workers, if there are some, with signals held back from their first instruction on."""
        with held_back(method=(self.multiprocessing_context or multiprocessing).get_start_method()):
            return super().__iter__()


def _begin(worker_id: int) -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    release()
    end_with_parent(signal.SIGKILL)
