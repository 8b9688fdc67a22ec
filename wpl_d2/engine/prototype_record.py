"""What a training leaves of its prototypes: a small file that grows, in place of many checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from numpy.typing import NDArray

from ..data.file_cache import load_arrays, write_arrays
from ..utils.errors import InputError

FILE = "prototypes.npz"
"""Of `OUTPUT_DIR`."""


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
    """What `PrototypeRecorder` wrote into the folder of a run.

    Raises:
        InputError: nothing that can be read.
    """
    arrays = load_arrays(folder / FILE, PrototypeRecord._fields)
    if arrays is None:
        raise InputError(f"{folder / FILE}: is missing or damaged; train with WEIGHTING.RECORD_PERIOD, such as 100")
    return PrototypeRecord(**arrays)


class PrototypeRecorder(HookBase):
    """Adds the memory bank's prototypes to `FILE` every `period` steps and at the end; the main process writes.

    A resumed run goes on with what was recorded up to its checkpoint.
    """

    def __init__(self, period: int, folder: Path) -> None:
        self._period = period
        self._folder = folder
        self._parts: list[PrototypeRecord] = []

    def before_train(self) -> None:
        """Keep what is there of the steps before the first one."""
        start = self.trainer.start_iter
        if start and (self._folder / FILE).is_file():
            record = read_prototypes(self._folder)
            kept = record.steps <= start
            self._parts = [PrototypeRecord(*(field[kept] for field in record))]

    @torch.no_grad()
    def after_step(self) -> None:
        """Record, if due."""
        steps, weigher = self.trainer.iter + 1, self.trainer.framework.weigher
        if weigher is None or not comm.is_main_process():
            return
        if steps % self._period == 0 or steps == self.trainer.max_iter:
            memory = weigher.memory
            prototypes, counts = memory.prototypes.cpu().numpy(), memory.counts.cpu().numpy()
            self._parts.append(PrototypeRecord(np.array([steps]), prototypes[None], counts[None]))
            record = PrototypeRecord(*(np.concatenate(field) for field in zip(*self._parts, strict=True)))
            write_arrays(self._folder / FILE, record._asdict())
