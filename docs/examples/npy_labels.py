"""Labels of one's own, `labels: {format: npy, files: labels/{id}.npy}`: an array of class ids for each image."""

from typing import Any

import numpy as np

from wpl_d2.data.labels import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage
from wpl_d2.utils.errors import InputError


@LABEL_FORMATS.register()
class NpyLabels(LabelFormat):
    """NumPy's files of (H, W) uint8 class ids, 255 where there is none."""

    name = "npy"

    def __init__(self, description: Any, *, files: str) -> None:
        """What `labels` of the YAML says beside `format`."""
        super().__init__(description)
        self.files = files

    def find(self, image: ListedImage) -> LabelSource:
        """The file, if it is there; when it changes, it is read anew."""
        return LabelSource.of_file(self.description.root / self.files.replace("{id}", image.id))

    def read(self, image: ListedImage) -> Labels:
        """Once for each image."""
        file = self.find(image).name
        mask = np.load(file, allow_pickle=False)
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise InputError(f"{file}: is not an array (height, width) of uint8; save class ids, and 255 for none")
        return Labels(mask)
