"""What the masks of a folder hold: which values, where, and what that says about the classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...structures import IGNORE
from ...utils.errors import InputError
from ..component_boxes import boxes_from_mask
from ..image_io import read_color_mask, read_raw_mask, read_size
from ..labels import Labels
from ..windows import huge_size, read_window, windows_of
from .files import evenly
from .layout import Layout
from .values import Meaning, find_meaning, meaning_of_labels, pack_colors, unpack_color

MAX_PIXELS = 3_000_000_000
"""Of larger folders a sample of the masks is read; this much takes a core some 20 seconds."""
_MAX_WITH_BOXES = 300
_MAX_DRAWN = 1000  # images whose shapes are drawn
_MIN_COMPONENT = 1 / 2000  # of the image
_OBJECT = 2 / 3
"""A class is countable if less of its components' boxes, by area, touches the image's border.

On CamVid and VOC animals objects have 0.05 to 0.52; tree, building, pavement, sky, road and background 0.79 to 1.0."""
_OBJECT_ON_BACKGROUND = 0.9  # the same of masks with a background, where what else is drawn mostly is countable
_BACKGROUND = 0.5  # least share of the images' borders that the value 0 takes, if it is a background


@dataclass
class MaskStatistics:
    """What was found in the masks that were read.

    Attributes:
        present: the class ids in the labels of each image, by its path below the root.
        images: number of masks that show each class id.
        meaning: what the values in the files stand for.
        ignored: number of masks that hold the value for "no class".
        border: by class id, its share of the pixels at the images' borders.
        touching: by class id, the share of its components' boxes, by area, that touches the border.
        palette: colors by class id, of colors or of the first mask with a palette.
        gray_colors: whether gray is stored as red, green and blue.
        covered: share of the pixels that shapes cover, in the median.
        size: median height and width.
    """

    present: dict[str, frozenset[int]]
    images: Counter[int]
    meaning: Meaning
    ignored: int
    border: dict[int, float]
    touching: dict[int, float]
    palette: tuple[tuple[int, int, int], ...]
    gray_colors: bool
    covered: float
    size: tuple[int, int]

    @property
    def has_background(self) -> bool:
        """Whether the value 0 is what is behind everything else, by the borders that it takes."""
        return self.border.get(0, 0.0) >= _BACKGROUND

    def objects(self) -> list[int]:
        """The class ids that look like countable things: most of what is seen of them is whole."""
        if self.has_background:
            return sorted(v for v, share in self.touching.items() if share < _OBJECT_ON_BACKGROUND and v)
        return sorted(v for v, share in self.touching.items() if share < _OBJECT)


@dataclass(frozen=True)
class _Mask:
    """Of one mask: values, their pixels at the border, boxes and values of components, palette, height and width."""

    values: np.ndarray
    border: np.ndarray
    boxes: tuple[np.ndarray, np.ndarray] | None
    palette: tuple[tuple[int, int, int], ...]
    gray_colors: bool
    covered: float
    size: tuple[int, int]
    problem: str


def read_masks(layout: Layout, ignore: str = "") -> MaskStatistics:
    """Read the masks of a folder, or a sample of them, in several threads and with a progress bar.

    Args:
        layout: of the folder.
        ignore: see `find_meaning`.

    Raises:
        InputError: a mask cannot be read, is of another size than its image, or its values are no classes.
    """
    pairs = list(layout.masks.items())
    first = _read(layout, pairs[0], False)
    pairs = evenly(pairs, max(1, MAX_PIXELS // (first.size[0] * first.size[1])))
    pairs = evenly(pairs, _MAX_DRAWN) if layout.labels else pairs
    boxed = {image for image, _ in evenly(pairs, _MAX_WITH_BOXES)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda pair: _read(layout, pair, pair[0] in boxed), pairs)
        read = list(tqdm(results, total=len(pairs), desc="masks", unit="mask", disable=None))
    problems = [mask.problem for mask in read if mask.problem]
    if problems:
        more = f" (so are {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    values = {image: mask.values for (image, _), mask in zip(pairs, read, strict=True)}
    covered = float(np.median([mask.covered for mask in read]))
    meaning = meaning_of_labels(layout.labels, covered) if layout.labels else find_meaning(layout, values, ignore)
    ids = {value: class_id for class_id, value in enumerate(meaning.values)}
    present = {image: frozenset(ids[v] for v in found.tolist() if v in ids) for image, found in values.items()}
    palette = next((mask.palette for mask in read if mask.palette), ())
    return MaskStatistics(
        present,
        Counter(class_id for found in present.values() for class_id in found),
        meaning,
        sum(meaning.ignore not in ids and bool((found == meaning.ignore).any()) for found in values.values()),
        _by_class(_border_shares(read), ids),
        _by_class(_touching_shares(read), ids),
        tuple(
            map(unpack_color, meaning.values)
            if layout.colored
            else (palette[v] for v in meaning.values if v < len(palette))
        ),
        any(mask.gray_colors for mask in read),
        covered,
        (int(np.median([mask.size[0] for mask in read])), int(np.median([mask.size[1] for mask in read]))),
    )


def _by_class(shares: dict[int, float], ids: dict[int, int]) -> dict[int, float]:
    return {ids[value]: share for value, share in shares.items() if value in ids}


def _read(layout: Layout, pair: tuple[str, str], with_boxes: bool) -> _Mask:
    if layout.labels:
        return _draw(layout.labels.read(layout.listed(pair[0])))
    root, (image, mask) = layout.root, pair
    size = huge_size(root / image, turn=False)
    if size is not None:
        return _read_windows(layout, mask, size, with_boxes)
    if layout.colored:
        pixels = pack_colors(read_color_mask(root / mask))
    else:
        pixels = read_raw_mask(root / mask, gray_colors=True)
    height, width = pixels.shape
    values, boxes = _look_at(pixels, with_boxes)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    with Image.open(root / mask) as header:
        palette = np.reshape(header.getpalette() or (), (-1, 3)).tolist() if header.mode == "P" else []
        gray_colors = not layout.colored and len(header.getbands()) > 1
    problem = ""
    wanted = read_size(root / image)[::-1]
    if wanted != (width, height):
        problem = (
            f"{root / mask}: is {width}x{height} (width x height), its image {wanted[0]}x{wanted[1]}; save both in one "
            "size, masks without smoothing"
        )
    return _Mask(values, edge, boxes, tuple(map(tuple, palette)), gray_colors, 1.0, (height, width), problem)


def _read_windows(layout: Layout, mask: str, size: tuple[int, int], with_boxes: bool) -> _Mask:
    """As `_read`, of a huge image of `size` (height, width). An object counts in each window that shows some of it."""
    values: set[int] = set()
    edge, boxes, ids = [], [np.zeros((0, 4), np.int64)], [np.zeros(0, np.int64)]
    for window in windows_of(size):
        stored = read_window(layout.root / mask, window)
        pixels = pack_colors(stored.values[..., :3]) if layout.colored else stored.values[..., 0]
        found, around = _look_at(pixels, with_boxes)
        values.update(found.tolist())
        edge += [pixels[0]] * (window.top == 0) + [pixels[-1]] * (window.top + window.height == size[0])
        edge += [pixels[:, 0]] * (window.left == 0) + [pixels[:, -1]] * (window.left + window.width == size[1])
        if around is not None:
            boxes.append(around[0] + np.array([window.left, window.top] * 2))
            ids.append(around[1])
    palette = [] if stored.palette is None else stored.palette.tolist()
    gray_colors = not layout.colored and stored.values.shape[2] > 1
    drawn = (np.concatenate(boxes), np.concatenate(ids)) if with_boxes else None
    return _Mask(
        np.array(sorted(values)), np.concatenate(edge), drawn, tuple(map(tuple, palette)), gray_colors, 1.0, size, ""
    )


def _look_at(pixels: np.ndarray, with_boxes: bool) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """The values of a mask (H, W), and the boxes and values of its components."""
    values = np.flatnonzero(np.bincount(pixels.ravel())) if pixels.dtype == np.uint8 else np.unique(pixels)
    if not with_boxes or len(values) > IGNORE + 1:
        return values, None
    return values, boxes_from_mask(pixels, values.tolist(), int(pixels.size * _MIN_COMPONENT), ignore=-1)


def _draw(labels: Labels) -> _Mask:
    mask = labels.mask
    values = np.unique(mask)
    if labels.boxes is not None and labels.box_classes is not None:
        boxes = labels.boxes, labels.box_classes
    else:
        boxes = boxes_from_mask(mask, values.tolist(), int(mask.size * _MIN_COMPONENT))
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    covered = float((mask != IGNORE).mean())
    return _Mask(values, edge, boxes, (), False, covered, (mask.shape[0], mask.shape[1]), "")


def _border_shares(masks: Sequence[_Mask]) -> dict[int, float]:
    pixels: Counter[int] = Counter()
    for mask in masks:
        values, counts = np.unique(mask.border, return_counts=True)
        pixels.update(dict(zip(values.tolist(), (counts / len(mask.border)).tolist(), strict=True)))
    return {value: share / len(masks) for value, share in pixels.items()}


def _touching_shares(masks: Sequence[_Mask]) -> dict[int, float]:
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
    return {value: touching[value] / total for value, total in area.items()}
