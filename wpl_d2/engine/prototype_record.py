"""What a training leaves of its prototypes: a small file that grows, in place of many checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from numpy.typing import NDArray

from ..utils.errors import InputError
from ..utils.files import clear_write_errors

FILE = "prototypes.npy"
"""Of `OUTPUT_DIR`: records one after the other, as `numpy.save` writes them."""


class PrototypeRecord(NamedTuple):
    """The prototypes of a training.

    Attributes:
        steps: (N,) int64, the numbers of trained steps, rising.
        prototypes: (N, C, D) float32, zeros for a class without embeddings.
        counts: (N, C) int64, the embeddings that they are means of.
    """

    steps: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    counts: NDArray[np.int64]


def read_prototypes(folder: Path) -> PrototypeRecord:
    """What `PrototypeRecorder` wrote into the folder of a run; a record that was cut off is left out.

    Raises:
        InputError: there is nothing.
    """
    records = _read(folder / FILE)
    if not records:
        raise InputError(f"{folder / FILE}: holds no prototypes; train with WEIGHTING.RECORD_PERIOD, such as 100")
    return PrototypeRecord(*(np.stack([record[name] for record in records]) for name in PrototypeRecord._fields))


class PrototypeRecorder(HookBase):
    """Adds the memory bank's prototypes to `FILE` every `period` steps and at the end; the main process writes.

    A resumed run goes on with what was recorded up to its checkpoint.
    """

    def __init__(self, period: int, folder: Path) -> None:
        self._period = period
        self._file = folder / FILE

    def before_train(self) -> None:
        """Keep what is there of the steps before the first one."""
        if comm.is_main_process():
            kept = [record for record in _read(self._file) if record["steps"] <= self.trainer.start_iter]
            self._file.unlink(missing_ok=True)
            for record in kept:
                self._append(record)

    @torch.no_grad()
    def after_step(self) -> None:
        """Record, if due."""
        steps, weigher = self.trainer.iter + 1, self.trainer.framework.weigher
        if weigher is None or not comm.is_main_process():
            return
        if steps % self._period == 0 or steps == self.trainer.max_iter:
            memory = weigher.memory
            prototypes, counts = memory.prototypes.cpu().numpy(), memory.counts.cpu().numpy()
            fields = [("steps", "i8"), ("prototypes", "f4", prototypes.shape), ("counts", "i8", counts.shape)]
            self._append(np.array((steps, prototypes, counts), dtype=fields))

    def _append(self, record: NDArray[np.void]) -> None:
        with clear_write_errors(self._file, record.nbytes), self._file.open("ab") as stream:
            np.save(stream, record)


def _read(file: Path) -> list[NDArray[np.void]]:
    """The whole records in a file; none where there is no file."""
    records: list[NDArray[np.void]] = []
    if not file.is_file():
        return records
    with file.open("rb") as stream:
        while True:
            try:
                records.append(np.load(stream, allow_pickle=False))
            except (EOFError, ValueError, OSError):  # the end, or a record that was cut off
                return records
