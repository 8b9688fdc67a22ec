"""How many pixels of a list's masks have each class and none, and what that means for its user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..structures import IGNORE

MAX_VOID = 0.2
"""A larger share of pixels without a class is reported."""
_MAX_NAMED = 5


@dataclass(frozen=True)
class LabelStatistics:
    """The label counts of a list's masks.

    Attributes:
        where: the list, for messages.
        pixels: (C + 1,) pixels of each class and, last, of none; see `count_labels`.
        classes: C names.
        ignore: the files' value for "no class"; None if 'labels' of the YAML says what has none.
        for_training: whether the list is trained on; else it is evaluated on.
    """

    where: str
    pixels: np.ndarray
    classes: Sequence[str]
    ignore: int | None
    for_training: bool

    @property
    def void(self) -> float:
        """Share of the pixels that have no class; 0 where there are no pixels."""
        return float(self.pixels[-1] / max(1, self.pixels.sum()))

    @property
    def empty(self) -> list[str]:
        """The classes without a pixel, if there are pixels at all."""
        if not self.pixels.any():
            return []
        return [name for name, count in zip(self.classes, self.pixels[:-1], strict=True) if not count]

    def problem(self) -> str:
        """A message if fewer than two classes have pixels, so that there is nothing to learn or to measure; else ""."""
        drawn = [name for name in self.classes if name not in self.empty]
        if len(drawn) > 1 or not self.pixels.any():
            return ""
        if not drawn:
            effect = "nothing can be learned from them" if self.for_training else "all metrics are NaN"
            return f"{self.where}: all of its masks are {self._no_class}, so that {effect}; {self._mend}"
        effect = "there is nothing to tell it from" if self.for_training else "mIoU says nothing"
        void = f" and {self._no_class} ({100 * self.void:.0f} % of the pixels)" if self.void else ""
        mend = self._mend if self.void else "choose images that show other classes too"
        return f"{self.where}: its masks hold nothing but {drawn[0]!r}{void}, so that {effect}; {mend}"

    def void_note(self) -> str:
        """A message if a large share of the pixels has no class; else ""."""
        if self.void <= MAX_VOID:
            return ""
        effect = "from which nothing is learned" if self.for_training else "on which nothing is measured"
        void = f"{self._no_class} covers {100 * self.void:.0f} % of the pixels"
        return f"{self.where}: {void}, {effect}; {self._mend}"

    def empty_note(self) -> str:
        """A message if classes have no pixels; else ""."""
        if not self.empty:
            return ""
        names = ", ".join(map(repr, self.empty[:_MAX_NAMED]))
        more = f" and {len(self.empty) - _MAX_NAMED} more" if len(self.empty) > _MAX_NAMED else ""
        effect = "not learned unless you label some" if self.for_training else "means over classes leave it out"
        return f"{self.where}: no pixel is labeled {names}{more}; {effect}"

    @property
    def _no_class(self) -> str:
        return "no class" if self.ignore is None else f"{self.ignore} = no class"

    @property
    def _mend(self) -> str:
        if self.ignore is None:
            return "if it should have one, change 'labels' of the data set's YAML"
        others, name = "...", "CLASS"
        if len(self.empty) == 1:
            (name,) = self.empty
            if len(self.classes) <= _MAX_NAMED:
                others = ", ".join(f"{i}: {known}" for i, known in enumerate(self.classes) if known != name)
        meant = repr(name) if self.empty == [name] else "a class of yours"
        table = f"labels: {{format: masks, values: {{{others}, {self.ignore}: {name}}}}}"
        return f"if {self.ignore} is {meant}, write `{table}` into the data set's YAML"


def count_labels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """The pixels of a mask by label.

    Args:
        mask: (H, W) uint8 class ids, `IGNORE` where there is none.
        num_classes: C.

    Returns:
        (C + 1,) int64: pixels of each class and, last, of none.
    """
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    return np.append(counts[:num_classes], counts[IGNORE])
