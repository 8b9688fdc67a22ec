"""Which images are of one sequence, so that none of its frames is trained on while another one validates."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ...utils.errors import InputError
from ..image_header import bits_per_channel
from ..pixel_values import decode_values
from .files import evenly
from .pairing import core_of

_NUMBERED = re.compile(r"(?P<sequence>.*?)(?P<number>\d+)")
_PAIRS = 60
_ALIKE = 0.6
"""Images are frames if neighbors differ by less than this share of what any two images differ by.

Measured: CamVid 0.41; COCO, VOC animals, NYUv2 and the digits, whose numbers mean nothing, 0.95 to 1.03."""
_BLOCKS = 20
_THUMBNAIL = (24, 24)


@dataclass(frozen=True)
class Groups:
    """What must stay together.

    Attributes:
        of: the group of each image, by its path.
        reason: what was seen, for the user; "" if each image is a group of its own.
    """

    of: dict[str, str]
    reason: str = ""


def find_groups(root: Path, images: Sequence[str], pattern: str = "") -> Groups:
    """Group images into sequences: by a pattern, else by numbered names if neighbors in number look alike.

    Args:
        root: of the paths.
        images: paths below it.
        pattern: regular expression that is searched in the paths; its first group, or all of what it finds, names the
            sequence. "": sequences are looked for.

    Raises:
        InputError: the pattern is no regular expression, or is not found in an image's path.
    """
    if pattern:
        return _by_pattern(images, pattern)
    numbers = _numbered(images)
    runs = [sorted(run, key=lambda image: numbers[image][1]) for run in _runs(numbers).values() if len(run) > 1]
    neighbors = [pair for run in runs for pair in pairwise(run)]
    if 2 * len(neighbors) < len(images) or not _alike(root, neighbors, images):
        return Groups({image: image for image in images})
    if len(runs) > 1:
        names = ", ".join(f"{_show(name)} ({n})" for name, n in Counter(s for s, _ in numbers.values()).most_common(4))
        more = f" and {len(runs) - 4} more" if len(runs) > 4 else ""
        return Groups(
            {image: numbers[image][0] if image in numbers else image for image in images},
            f"images of neighboring numbers look alike, so these are frames of {len(runs)} sequences: {names}{more}",
        )
    return Groups(_blocks(runs[0], images), _blocks_reason(len(runs[0])))


def blocks_of(groups: Groups, images: Sequence[str]) -> Groups:
    """In place of sequences their parts: some twenty blocks of frames in a row.

    Args:
        groups: of `find_groups`.
        images: those to divide, in the order of their numbers within a sequence.
    """
    return Groups(groups.of | _blocks(images, images), _blocks_reason(len(images)))


def _blocks(run: Sequence[str], images: Sequence[str]) -> dict[str, str]:
    size = _block_size(len(run))
    return {image: image for image in images} | {image: f"block {i // size}" for i, image in enumerate(run)}


def _block_size(count: int) -> int:
    return max(1, -(-count // _BLOCKS))


def _blocks_reason(count: int) -> str:
    return (
        "images of neighboring numbers look alike and belong to one sequence, so blocks of "
        f"{_block_size(count)} in a row stay together; only at their ends frames on both sides are neighbors"
    )


def _by_pattern(images: Sequence[str], pattern: str) -> Groups:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--groups: {pattern!r} is no regular expression ({error}); write one such as '(.*)_\\d+'"
        ) from error
    found = {}
    for image in images:
        match = expression.search(image)
        if not match:
            raise InputError(
                f"--groups: {pattern!r} is not found in {image}; give a regular expression that every image's path has"
            )
        found[image] = (match[1] if expression.groups else match[0]) or ""
    return Groups(found, f"--groups: {len(set(found.values()))} groups")


def _numbered(images: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Sequence and number of each image whose name ends in one."""
    found = {}
    for image in images:
        match = _NUMBERED.fullmatch(core_of(image))
        if match:
            folder = PurePosixPath(image).parent.as_posix()
            found[image] = (f"{folder}/{match['sequence']}", int(match["number"]))
    return found


def _runs(numbers: dict[str, tuple[str, int]]) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = defaultdict(list)
    for image, (sequence, _) in numbers.items():
        runs[sequence].append(image)
    return runs


def _show(sequence: str) -> str:
    return PurePosixPath(sequence).name.rstrip("_-. ") or sequence


def _alike(root: Path, neighbors: Sequence[tuple[str, str]], images: Sequence[str]) -> bool:
    """Whether neighbors look more alike than images that are far apart, in the median of some pairs."""
    near = evenly(neighbors, _PAIRS)
    some = evenly(images, _PAIRS)
    far = list(zip(some, [*some[len(some) // 2 :], *some[: len(some) // 2]], strict=True))
    with ThreadPoolExecutor() as pool:
        of_near, of_far = (
            np.median(list(pool.map(lambda pair: _difference(root, *pair), pairs))) for pairs in (near, far)
        )
    return bool(of_near < _ALIKE * of_far)


def _difference(root: Path, one: str, other: str) -> float:
    return float(np.abs(_thumbnail(root / one) - _thumbnail(root / other)).mean())


def _thumbnail(path: Path) -> np.ndarray:
    """A tiny gray picture, of mean 0 and deviation 1; of an unreadable image zeros."""
    try:
        with Image.open(path) as image:
            image.draft("L", _THUMBNAIL)
            if bits_per_channel(image) > 8:
                raise UnidentifiedImageError
            pixels = np.asarray(image.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX), dtype=np.float32)
    except UnidentifiedImageError:
        return _thumbnail_of_values(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return np.zeros(_THUMBNAIL, np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + 1)


def _thumbnail_of_values(path: Path) -> np.ndarray:
    """The same of an image that is not of eight bits."""
    try:
        values = np.nan_to_num(decode_values(path)[0].astype(np.float32)).mean(axis=2)
    except (OSError, SyntaxError, ValueError):
        return np.zeros(_THUMBNAIL, np.float32)
    pixels = cv2.resize(values, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return (pixels - pixels.mean()) / (pixels.std() or 1)
