"""COCO's panoptic format: a JSON of segments, and a PNG for each image that shows which pixels are whose.

https://cocodataset.org/#format-data, 4. Panoptic Segmentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.checks import check_text
from ...utils.errors import InputError
from ..image_io import read_color_mask
from .json_entries import read_entries
from .label_format import LABEL_FORMATS, NO_CLASS, LabelSource, ListedImage
from .set_file_format import FileIndex, SetFileFormat
from .shapes import LabeledImage, Region, Shape

if TYPE_CHECKING:
    from ..datasets.folder import Description

_LISTS = ("images", "annotations", "categories")
_MAX_NAMED = 5


@LABEL_FORMATS.register()
class CocoPanoptic(SetFileFormat):
    """Segments, each of which is an instance; what an image's PNG shows as 0 is covered by none."""

    name = "coco_panoptic"
    tool = "COCO"

    def __init__(
        self, description: Description, *, masks: object, uncovered: object = NO_CLASS, **settings: Any
    ) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            masks: the folder of the PNGs, below the data set's root.
            uncovered: as of `ShapeFormat`.
            settings: of `SetFileFormat`.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description, uncovered=uncovered, **settings)
        self._folder = description.root / check_text(f"{self.where}: 'masks'", masks)

    def index(self, file: Path) -> FileIndex:
        """See `SetFileFormat`."""
        images: dict[Any, str] = {}
        categories: dict[Any, str] = {}
        segments: list[tuple[Any, int, int]] = []
        masks: list[str] = []
        used: dict[Any, str] = {}
        for key, value, start, end in read_entries(file, _LISTS):
            if key == "images":
                images[value["id"]] = value["file_name"]
            elif key == "categories":
                categories[value["id"]] = value["name"]
            elif key == "annotations":
                segments.append((value["image_id"], start, end))
                masks.append(value["file_name"])
                used |= {segment["category_id"]: value["file_name"] for segment in value["segments_info"]}
        for category, mask in used.items():
            if category not in categories:
                raise InputError(
                    f"{file}: the segments of {mask} have the category id {category!r}, which is not in 'categories'; "
                    "add it there, or export the file anew"
                )
        for image, *_ in segments:
            if image not in images:
                raise InputError(f"{file}: has segments of the image id {image!r}, which is not in 'images'; add it")
        common = {"categories": [(category, categories[category]) for category in used], "masks": masks}
        return FileIndex.of_single([(images[image], start, end) for image, start, end in segments], common)

    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """See `SetFileFormat`."""
        return (name for _, name in common["categories"])

    def find(self, image: ListedImage) -> LabelSource:
        """See `LabelFormat`."""
        source, place = super().find(image), self._place(image)
        if place is None:
            return source
        mask = LabelSource.of_file(self._folder / self._indices[place.file].common["masks"][place.image])
        return mask if mask.state is None else LabelSource(mask.name, (source.state, mask.state))

    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """See `SetFileFormat`."""
        record, names = json.loads(next(values)), dict(common["categories"])
        mask = self._folder / record["file_name"]
        red, green, blue = np.moveaxis(read_color_mask(mask, self.description.exif).astype(np.int32), -1, 0)
        ids = red + (green << 8) + (blue << 16)
        known = {segment["id"] for segment in record["segments_info"]}
        if unknown := sorted(set(np.unique(ids).tolist()) - known - {0}):
            raise InputError(
                f"{mask}: shows segments that {file} does not list, such as {unknown[:_MAX_NAMED]}; export both anew"
            )
        shapes = [
            Shape(names[segment["category_id"]], [Region.of_pixels(ids == segment["id"])], bool(segment.get("iscrowd")))
            for segment in record["segments_info"]
        ]
        return LabeledImage(shapes, str(mask), ids.shape)
