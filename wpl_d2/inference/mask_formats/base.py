"""What a format of predicted masks has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.windows import Window
from ...utils.errors import InputError
from ..sources import Frame, Source

MaskParts = Iterable[tuple[Window, np.ndarray]]
"""Parts of a mask, (h, w) uint8 class ids, and their places."""


class MaskFormat(ABC):
    """Writes predicted masks in one format.

    Attributes:
        place: the file or folder of the masks, below the folder of the results.
    """

    place: ClassVar[str]

    def __init__(self, folder: Path, metadata: Mapping[str, Any], source: Source) -> None:
        """Prepare; earlier results are not changed before the first mask.

        Args:
            folder: of the results.
            metadata: of the model.
            source: of the images.

        Raises:
            InputError: the format is not for such images, or something else is in its place.
        """
        self.path, self.metadata, self.source = folder / self.place, metadata, source

    @property
    def categories(self) -> list[dict[str, Any]] | None:
        """In COCO's format, if `place` is one file in this format, of all images; else None."""
        return None

    @abstractmethod
    def add(self, frame: Frame, labels: np.ndarray) -> Iterable[dict[str, Any]]:
        """Write the mask of an image.

        Args:
            frame: the image's name and file.
            labels: (H, W) uint8 class ids.

        Returns:
            its annotations for the file of all images, if the format has `categories`.

        Raises:
            UnwritableError: it cannot be written.
        """

    def add_parts(self, frame: Frame, size: tuple[int, int], parts: MaskParts) -> None:
        """Write the mask of an image that is too large for memory.

        Args:
            frame: the image's name and file.
            size: (height, width) of the image.
            parts: of the mask, disjoint, all of it.

        Raises:
            InputError: the format holds whole masks in memory.
            UnwritableError: it cannot be written.
        """
        raise InputError(f"{frame.file}: is too large for masks of this format; take --format geotiff")
