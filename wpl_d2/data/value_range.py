"""How the values of images lie in the range that is black to white, and what range fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..utils.errors import InputError
from .image_io import UnreadableImageError, read_record
from .pixel_values import RGB, PixelLayout, decode_values
from .windows import read_window, split_huge

PERCENTILES = (0.5, 99.5)
"""Those of the values that `propose_layout` takes for black and white."""
MAX_OUTSIDE = 0.05
"""Of an image's values; more are worth a note."""
_MIN_BRIGHT = 0.1
_SAMPLE = 32  # images
_PIXELS = 2**16  # of an image, for percentiles
_MAX_SHOWN = 5


class Fit(NamedTuple):
    """How an image's values lie in their range: the share outside, and where the 99th percentile is from 0 to 1."""

    outside: float
    bright: float


def measure_fit(values: np.ndarray, layout: PixelLayout) -> Fit:
    """Compare an image's stored values (H, W, C) with a layout's `value_range`."""
    low, high = np.array(layout.value_range).T
    inside = (values >= low) & (values <= high)  # what is no number is not
    with np.errstate(invalid="ignore"):
        bright = np.nanquantile((_thinned(values) - low) / (high - low), 0.99)
    return Fit(1 - float(inside.mean()), float(bright))


def range_notes(fits: Mapping[str, Fit], layout: PixelLayout) -> list[str]:
    """Notes on a data set's range: which images lie outside, and whether all are nearly black.

    Args:
        fits: by file.
        layout: of the images.
    """
    worst = sorted((file for file, fit in fits.items() if fit.outside > MAX_OUTSIDE), key=lambda f: -fits[f].outside)
    notes = [
        f"{file}: {fits[file].outside:.0%} of its values lie outside of 'value_range' ({_text(layout)}) and are cut "
        "off; widen it, if they mean something"
        for file in worst[:_MAX_SHOWN]
    ]
    if len(worst) > _MAX_SHOWN:
        notes.append(f"{len(worst) - _MAX_SHOWN} more images have over {MAX_OUTSIDE:.0%} of their values outside of it")
    brightest = max(fits, key=lambda file: fits[file].bright, default="")
    if brightest and fits[brightest].bright < _MIN_BRIGHT:
        notes.append(
            f"{brightest}: is the brightest image, and nearly black: its values reach {fits[brightest].bright:.1%} of "
            f"'value_range' ({_text(layout)}); narrow it"
        )
    return notes


def propose_layout(files: Sequence[Path]) -> PixelLayout:
    """The layout of some images: `RGB` for those that need none, else their channels and a range by percentiles.

    Args:
        files: at least one; a sample is read.

    Raises:
        InputError: an image cannot be read, or they differ in their channels.
    """
    try:
        read_record(_record(files[0]))
        return RGB
    except UnreadableImageError as error:
        try:
            first = _stored(files[0])
        except (OSError, ValueError):
            raise error from None
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(_SAMPLE, len(files))).astype(int)]
    with ThreadPoolExecutor() as pool:
        sample = {file: values for file, values in zip(chosen, pool.map(_sample, chosen), strict=True) if values.size}
    count = first.shape[2]
    for file, values in sample.items():
        if values.shape[2] != count:
            raise InputError(
                f"{file}: has {values.shape[2]} channels, and {files[0]} {count}; say which are the images by --images"
            )
    pixels = np.concatenate([values.reshape(-1, count) for values in sample.values()])
    if count in (1, 3):
        return PixelLayout(value_range=(_range(pixels),) * 3)
    names = tuple(f"channel {place + 1}" for place in range(count))
    return PixelLayout(names, () if pixels.dtype == np.uint8 else tuple(_range(channel) for channel in pixels.T))


def _record(file: Path) -> dict[str, Any]:
    """A dataset dict of an image, or of the first window of a huge one."""
    return split_huge({"file_name": str(file), "image_id": "", "exif": "ignore"})[0]


def _stored(file: Path) -> np.ndarray:
    record = _record(file)
    return read_window(file, record["window"]).values if "window" in record else decode_values(file)[0]


def _sample(file: Path) -> np.ndarray:
    """Some of an image's values; none of one that cannot be read, which the check of the data set will say."""
    try:
        return _thinned(_stored(file))
    except (OSError, SyntaxError, ValueError):
        return np.zeros(0)


def describe_pixels(files: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The keys of a data set's YAML that `propose_layout` makes, none for 8-bit colors; and what was seen, in words."""
    layout = propose_layout(files)
    if layout == RGB:
        return {}, []
    keys: dict[str, Any] = {}
    said = []
    if layout.channels != RGB.channels:
        keys["channels"] = list(layout.channels)
        said.append(f"images of {len(layout.channels)} channels; `channels` can say which are red, green and blue")
    if layout.value_range:
        pairs = [[int(v) if v == round(v) else v for v in pair] for pair in layout.value_range]
        keys["value_range"] = pairs[0] if layout.channels == RGB.channels else pairs
        low, high = PERCENTILES
        said.append(f"black and white: {_text(layout)}, the percentiles {low} and {high} of the images' values")
    return keys, said


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(np.where(np.isfinite(values), values, np.nan), PERCENTILES)
    if values.dtype.kind in "ui":
        return float(np.floor(low)), float(max(np.ceil(high), np.floor(low) + 1))
    low, high = float(low), float(high if high > low else low + 1)
    short = float(f"{low:.4g}"), float(f"{high:.4g}")
    return short if short[0] < short[1] else (low, high)


def measure_channels(records: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each channel of some images, in 0..255.

    Args:
        records: dataset dicts, at least one.

    Raises:
        InputError: an image cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        moments = list(pool.map(lambda record: _moments(read_record(record)), records))
    mean, square = np.mean(moments, axis=0)
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist())


def _moments(image: np.ndarray) -> np.ndarray:
    pixels = _thinned(image).astype(np.float64)
    return np.stack([pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1))])


def _thinned(values: np.ndarray) -> np.ndarray:
    """Every n-th row and column, so that few enough pixels are left."""
    step = max(1, int((values.shape[0] * values.shape[1] / _PIXELS) ** 0.5))
    return values[::step, ::step]


def _text(layout: PixelLayout) -> str:
    return ", ".join(f"[{low:g}, {high:g}]" for low, high in dict.fromkeys(layout.value_range))
