"""What the masks of a folder hold: which values, where, and what that says about the classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...structures import IGNORE
from ...utils.errors import InputError
from ..component_boxes import boxes_from_mask
from ..image_io import read_raw_mask, shown_size
from .files import evenly
from .layout import Layout

MAX_PIXELS = 3_000_000_000
"""Of larger folders a sample of the masks is read; this much takes a core some 20 seconds."""
_MAX_WITH_BOXES = 300
_MIN_COMPONENT = 1 / 2000  # of the image
_DEEP_IGNORE = 65535
_OBJECT = 2 / 3
"""A class is countable if less of its components' boxes, by area, touches the image's border.

On CamVid and VOC animals objects have 0.05 to 0.52; tree, building, pavement, sky, road and background 0.79 to 1.0."""
_OBJECT_ON_BACKGROUND = 0.9  # the same of masks with a background, where what else is drawn mostly is countable
_BACKGROUND = 0.5  # least share of the images' borders that the value 0 takes, if it is a background


@dataclass
class MaskStatistics:
    """What was found in the masks that were read.

    Attributes:
        present: the values in each mask, by its path below the root; without that for "no class".
        images: number of masks that show each value.
        ignore: the value for "no class".
        ignored: number of masks that hold it.
        border: by value, its share of the pixels at the images' borders.
        touching: by value, the share of its components' boxes, by area, that touches the border.
        palette: colors by value, of the first mask that has some.
        size: median height and width.
    """

    present: dict[str, frozenset[int]] = field(default_factory=dict)
    images: Counter[int] = field(default_factory=Counter)
    ignore: int = IGNORE
    ignored: int = 0
    border: dict[int, float] = field(default_factory=dict)
    touching: dict[int, float] = field(default_factory=dict)
    palette: tuple[tuple[int, int, int], ...] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def num_values(self) -> int:
        """One more than the highest class id."""
        return max(self.images, default=-1) + 1

    @property
    def has_background(self) -> bool:
        """Whether the value 0 is what is behind everything else, by the borders that it takes."""
        return self.border.get(0, 0.0) >= _BACKGROUND

    def objects(self) -> list[int]:
        """The values that look like countable things: most of what is seen of them is whole."""
        if self.has_background:
            return sorted(v for v, share in self.touching.items() if share < _OBJECT_ON_BACKGROUND and v)
        return sorted(v for v, share in self.touching.items() if share < _OBJECT)


@dataclass(frozen=True)
class _Mask:
    """Of one mask: values, their pixels at the border, boxes and classes of components, palette, height and width."""

    values: np.ndarray
    border: np.ndarray
    boxes: tuple[np.ndarray, np.ndarray] | None
    palette: tuple[tuple[int, int, int], ...]
    size: tuple[int, int]
    problem: str


def read_masks(layout: Layout) -> MaskStatistics:
    """Read the masks of a folder, or a sample of them, in several threads and with a progress bar.

    Args:
        layout: of the folder.

    Raises:
        InputError: a mask cannot be read, is of another size than its image, or its values are no class ids.
    """
    pairs = list(layout.masks.items())
    first = _read(layout.root, pairs[0], False)
    pairs = evenly(pairs, max(1, MAX_PIXELS // (first.size[0] * first.size[1])))
    boxed = {image for image, _ in evenly(pairs, _MAX_WITH_BOXES)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda pair: _read(layout.root, pair, pair[0] in boxed), pairs)
        read = list(tqdm(results, total=len(pairs), desc="masks", unit="mask", disable=None))
    problems = [mask.problem for mask in read if mask.problem]
    if problems:
        more = f" (so are {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    values = Counter(int(value) for mask in read for value in mask.values)
    ignore = next((value for value in (_DEEP_IGNORE, IGNORE) if value in values), IGNORE)
    _check_values(layout, {mask: m.values for (_, mask), m in zip(pairs, read, strict=True)}, values, ignore)
    ignored = values.pop(ignore, 0)
    return MaskStatistics(
        {mask: frozenset(m.values.tolist()) - {ignore} for (_, mask), m in zip(pairs, read, strict=True)},
        values,
        ignore,
        ignored,
        _border_shares(read),
        _touching_shares(read, ignore),
        next((mask.palette for mask in read if mask.palette), ()),
        (int(np.median([mask.size[0] for mask in read])), int(np.median([mask.size[1] for mask in read]))),
    )


def _read(root: Path, pair: tuple[str, str], with_boxes: bool) -> _Mask:
    image, mask = pair
    pixels = read_raw_mask(root / mask)
    height, width = pixels.shape
    values = np.flatnonzero(np.bincount(pixels.ravel())) if pixels.dtype == np.uint8 else np.unique(pixels)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    boxes = None
    if with_boxes and len(values) <= IGNORE + 1:
        boxes = boxes_from_mask(pixels, values.tolist(), int(height * width * _MIN_COMPONENT), ignore=-1)
    with Image.open(root / mask) as header, Image.open(root / image) as of_image:
        palette = np.reshape(header.getpalette() or (), (-1, 3)).tolist() if header.mode == "P" else []
        wanted = shown_size(of_image)
    problem = ""
    if wanted != (width, height):
        problem = (
            f"{root / mask}: is {width}x{height} (width x height), its image {wanted[0]}x{wanted[1]}; save both in one "
            "size, masks without smoothing"
        )
    return _Mask(values, edge, boxes, tuple(map(tuple, palette)), (height, width), problem)


def _check_values(layout: Layout, masks: dict[str, np.ndarray], images: Counter[int], ignore: int) -> None:
    """Refuse masks whose values are no class ids from 0 on."""
    ids = sorted(set(images) - {ignore})
    crowded = max(masks, key=lambda mask: len(masks[mask]))
    if not ids:
        raise InputError(f"{layout.root}: all masks hold {ignore} = no class alone; save them with class ids from 0 on")
    if ids[0] < 0 or ids[-1] >= IGNORE or len(ids) > IGNORE:
        raise InputError(
            f"{layout.root / crowded}: holds {len(masks[crowded])} values, and the masks values from {ids[0]} to "
            f"{ids[-1]}; class ids are 0 to {IGNORE - 1}: give another folder if these are instances or depths, else "
            "save the masks with class ids"
        )
    shown = ", ".join(map(str, (*ids, ignore)[:6] if ignore in images else ids[:6]))
    if len(ids) == 1 and ignore in images:
        raise InputError(
            f"{layout.root / crowded}: its masks hold {shown} alone, and {IGNORE} is no class; if it is one, save the "
            "masks with 1 in its place"
        )
    if len(ids) == 1:
        raise InputError(
            f"{layout.root / crowded}: all masks hold {shown} alone, so that there is nothing to tell it from; add "
            "masks that show other classes"
        )
    if ids[-1] > 2 * len(ids) + 16:
        raise InputError(
            f"{layout.root / crowded}: the masks hold {len(ids)} values with gaps, {shown}, up to {ids[-1]}, as gray "
            f"levels have; save them with the class ids 0 to {len(ids) - 1}"
        )


def _border_shares(masks: Sequence[_Mask]) -> dict[int, float]:
    pixels: Counter[int] = Counter()
    for mask in masks:
        values, counts = np.unique(mask.border, return_counts=True)
        pixels.update(dict(zip(values.tolist(), (counts / len(mask.border)).tolist(), strict=True)))
    return {value: share / len(masks) for value, share in pixels.items()}


def _touching_shares(masks: Sequence[_Mask], ignore: int) -> dict[int, float]:
    area: Counter[int] = Counter()
    touching: Counter[int] = Counter()
    for mask in masks:
        if mask.boxes is None:
            continue
        boxes, ids = mask.boxes
        height, width = mask.size
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / (height * width)
        at_border = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2:] == (width, height)).any(axis=1)
        for value, box_area, touches in zip(ids.tolist(), areas.tolist(), at_border.tolist(), strict=True):
            area[value] += box_area
            touching[value] += box_area * touches
    return {value: touching[value] / total for value, total in area.items() if value != ignore}
