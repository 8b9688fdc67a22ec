"""What a framework has asked the loader for, and what it wants to do with it."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ...utils.comm import all_gather_rows

AHEAD = 2
"""Steps from a request to its image: one in which it is made, and the one before, in whose forward it is drawn."""


class RequestQueue(nn.Module):
    """The images and classes that all processes asked for in the last steps, oldest first.

    Attributes:
        rows: (AHEAD, P, 2) int64, an unlabeled image and a class for each of P requests of a step, in rank order and
            the same on every rank; -1 where nothing was asked for.
    """

    rows: Tensor

    def __init__(self, total: int) -> None:
        """A queue of nothing.

        Args:
            total: requests of all processes in a step, P.
        """
        super().__init__()
        self.register_buffer("rows", torch.full((AHEAD, total, 2), -1))
        self._staged: Tensor | None = None

    @property
    def count(self) -> int:
        """Requests of one process in a step."""
        return self.rows.shape[1] // comm.get_world_size()

    @property
    def classes(self) -> Tensor:
        """(count,) int64: the classes for whose sake this process asked for the images of the current step."""
        return self._own()[0, :, 1]

    def stage(self, images: Tensor, classes: Tensor) -> None:
        """Ask for images (count,) int64, each for the sake of a class (count,) int64."""
        self._staged = torch.stack([images, classes], dim=1)

    def coming(self) -> list[list[int]]:
        """This process's images of the next AHEAD steps, after a forward or between two steps. Waits for the device."""
        rows = self._own()
        if self._staged is not None:
            rows = torch.cat([rows[1:], self._staged.unsqueeze(0)])
        return [[image for image in step if image >= 0] for step in rows[..., 0].tolist()]

    @torch.no_grad()
    def after_step(self) -> None:
        """The step is over: go on to the next one's requests. A collective call."""
        if self._staged is not None:
            self.rows.copy_(torch.cat([self.rows[1:], all_gather_rows(self._staged).unsqueeze(0)]))
            self._staged = None

    def _own(self) -> Tensor:
        first = comm.get_rank() * self.count
        return self.rows[:, first : first + self.count]
