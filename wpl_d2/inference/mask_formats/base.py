"""What a format of predicted masks has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar

import numpy as np

from ..sources import Frame, Source


class MaskFormat(ABC):
    """Writes predicted masks in one format.

    Attributes:
        place: the file or folder of the masks, below the folder of the results.
    """

    place: ClassVar[str]

    def __init__(
        self, folder: Path, metadata: Mapping[str, Any], source: Source, keep: Callable[[PurePath], bool]
    ) -> None:
        """Prepare; earlier results are not changed before the first mask.

        Args:
            folder: of the results.
            metadata: of the model.
            source: of the images.
            keep: called with an image's file; whether what an earlier run wrote of it stays.

        Raises:
            InputError: the format is not for such images, or something else is in its place.
        """
        self.path, self.metadata, self.source = folder / self.place, metadata, source

    @abstractmethod
    def add(self, frame: Frame, labels: np.ndarray) -> None:
        """Write the mask of an image.

        Args:
            frame: the image's name and file.
            labels: (H, W) uint8 class ids.

        Raises:
            UnwritableError: it cannot be written.
        """

    def close(self) -> None:  # noqa: B027 - most write all of a mask at once
        """Write what still waits; also called after an error or interruption."""
