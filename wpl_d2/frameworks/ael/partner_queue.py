"""The images that AEL mixes the unlabeled ones of the next steps with."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ...utils.comm import all_gather_rows

AHEAD = 2
"""Steps from the forward that chooses a partner to the one that uses it; the loader makes it in between."""


class PartnerQueue(nn.Module):
    """The partners that all processes chose in the last steps, oldest first, and the classes they were chosen for.

    Attributes:
        rows: (AHEAD, P, 2) int64, index in the unlabeled list and class of each of a step's P partners, in rank order
            and the same on every rank; -1 where there is none.
    """

    rows: Tensor

    def __init__(self, total: int) -> None:
        """A queue of nothing.

        Args:
            total: partners of all processes in a step, P.
        """
        super().__init__()
        self.register_buffer("rows", torch.full((AHEAD, total, 2), -1))
        self._staged: Tensor | None = None

    @property
    def count(self) -> int:
        """Partners of one process in a step."""
        return self.rows.shape[1] // comm.get_world_size()

    @property
    def classes(self) -> Tensor:
        """(count,) int64: the classes for which this process chose the partners of the current step."""
        return self._own()[0, :, 1]

    def stage(self, images: Tensor, classes: Tensor) -> None:
        """Choose the next partners: indices of images (count,) int64, and the class (count,) int64 of each.

        Of several choices in a step the last one counts.
        """
        self._staged = torch.stack([images, classes], dim=1)

    def upcoming(self) -> list[list[int]]:
        """This process's partners of the next AHEAD steps. Waits for the device; not to be called during a forward."""
        rows = self._own()
        if self._staged is not None:
            rows = torch.cat([rows[1:], self._staged.unsqueeze(0)])
        return [[image for image in step if image >= 0] for step in rows[..., 0].tolist()]

    @torch.no_grad()
    def after_step(self) -> None:
        """Drop the partners of the step that is over and gather the new ones of all ranks. A collective call."""
        if self._staged is not None:
            self.rows.copy_(torch.cat([self.rows[1:], all_gather_rows(self._staged).unsqueeze(0)]))
            self._staged = None

    def _own(self) -> Tensor:
        first = comm.get_rank() * self.count
        return self.rows[:, first : first + self.count]
