"""Masks as GeoTIFF, with the georeference of their images."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.windows import Window, import_rasterio, open_raster, slices
from ...structures import IGNORE
from ...utils.files import clear_write_errors, replace_file
from ..sources import MASKS, Frame, Source
from .base import MaskFormat, MaskParts

if TYPE_CHECKING:
    from rasterio import DatasetReader

_OPTIONS = {
    **{"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": IGNORE},
    **{"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "BIGTIFF": "IF_SAFER"},
}


class GeoTIFF(MaskFormat):
    """`masks/NAME.tif`: a tiled GeoTIFF of class ids with the classes' colors; 255 where the image has no data."""

    place = MASKS

    def __init__(self, folder: Path, metadata: Mapping[str, Any], source: Source) -> None:
        """See `MaskFormat`."""
        super().__init__(folder, metadata, source)
        import_rasterio("--format geotiff: is written")

    def add(self, frame: Frame, labels: np.ndarray) -> tuple[()]:
        """See `MaskFormat`."""
        size = (labels.shape[0], labels.shape[1])
        self.add_parts(frame, size, [(Window(0, 0, *size, size), labels)])
        return ()

    def add_parts(self, frame: Frame, size: tuple[int, int], parts: MaskParts) -> None:
        """See `MaskFormat`."""
        target = self.path / f"{frame.name}.tif"
        write_geotiff(target, self.source.root / frame.file, size, self.metadata["colors"], parts)


def write_geotiff(
    target: Path, image: Path, size: tuple[int, int], colors: Sequence[Sequence[int]], parts: MaskParts
) -> None:
    """Write a mask as GeoTIFF, part by part; the file is whole or absent.

    Args:
        target: the file; its folder is made where it is missing.
        image: of which the mask is. Its georeference is taken over, if it has one and `size`.
        size: (height, width) of the mask.
        colors: (r, g, b) of each class.
        parts: disjoint, all of the mask.

    Raises:
        UnwritableError: it cannot be written.
    """
    with clear_write_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        source: DatasetReader | None = None
        with suppress(OSError):  # a video's frame, or a format that GDAL does not read
            source = stack.enter_context(open_raster(image))
        if source is not None and source.shape != size:  # it was turned
            source = None
        replace_file(target, lambda unfinished: _write(unfinished, source, size, colors, parts))


def _write(
    file: Path, source: DatasetReader | None, size: tuple[int, int], colors: Sequence[Sequence[int]], parts: MaskParts
) -> None:
    written: list[tuple[Window, int]] = []
    options = {**_OPTIONS, "height": size[0], "width": size[1], **({} if source is None else _georeference(source))}
    with open_raster(file, "w", **options) as raster:
        raster.write_colormap(1, {index: (*color, 255) for index, color in enumerate(colors)})
        for window, labels in parts:
            if source is not None:
                labels = np.where(source.dataset_mask(window=slices(window)) > 0, labels, np.uint8(IGNORE))
            raster.write(labels, 1, window=slices(window))
            written.append((window, zlib.crc32(labels.tobytes())))
    with open_raster(file) as raster:  # of a disk that is full when it closes a file GDAL tells nobody
        if any(zlib.crc32(raster.read(1, window=slices(window))) != digest for window, digest in written):
            raise OSError("what it holds is not what was written")


def _georeference(source: DatasetReader) -> dict[str, Any]:
    points, system = source.gcps
    if points:
        return {"gcps": points, "crs": system, "rpcs": source.rpcs}
    known = {} if source.transform.is_identity else {"transform": source.transform}
    return known | {"crs": source.crs, "rpcs": source.rpcs}
