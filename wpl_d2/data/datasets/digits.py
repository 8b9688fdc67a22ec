"""The embedded data set: handwritten digits on photographs, made from scikit-learn's data in a few seconds.

Real strokes and real photographs, so that results mean something, and nothing to download. The training
scenes and the validation scenes share neither a digit nor a region of a photograph.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from ...utils.errors import InputError
from .generators import GENERATORS

SEED = 7
SIZE = 128
LABELED, UNLABELED, VALIDATION = 32, 500, 100

_TRAIN_DIGITS = 1200  # of 1797 in file order: neighbors share a writer, so most writers stay on one side
_TRAIN_COLUMNS = 400  # of a photograph's 640
_DIGITS = (3, 4)  # per scene, inclusive
_HEIGHT = (44, 80)  # of a digit, pixels
_TURN = 12.0  # degrees; more would make 6 and 9 each other's doubles
_HIDDEN = 0.15  # share of a digit that the next one may cover
_HUES = 0.02  # standard deviation of a digit's hue around its class's; the classes lie 0.1 apart
_PLACES = 20  # tries to find a place that keeps to _HIDDEN

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Source:
    """What training or validation scenes are made of: photographs (H, W, 3), digits (N, 8, 8) in 0..1."""

    photos: list[NDArray[np.uint8]]
    strokes: Array
    labels: NDArray[np.int64]


@GENERATORS.register()
def digits(root: Path) -> None:
    """Write the data set: images/ID.jpg, masks/ID.png (0 background, 1 to 10 the digits) and splits/LIST.txt.

    The unlabeled scenes have masks too, for measuring pseudo-labels; training cannot read them. The files are
    the same, byte for byte, at every call on one platform.

    Args:
        root: folder to write into.

    Raises:
        InputError: scikit-learn is not installed.
    """
    train, validation = _load_sources()
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (name, count, source) in enumerate(
        [("labeled", LABELED, train), ("unlabeled", UNLABELED, train), ("val", VALIDATION, validation)]
    ):
        scenes = compose_scenes(source, np.random.default_rng([SEED, number]))
        ids = [f"{name}_{index:03d}" for index in range(count)]
        for scene_id, (image, mask) in zip(ids, scenes, strict=False):
            Image.fromarray(image).save(root / "images" / f"{scene_id}.jpg", quality=92)
            Image.fromarray(mask).save(root / "masks" / f"{scene_id}.png")
        (root / "splits" / f"{name}.txt").write_text("".join(f"{scene_id}\n" for scene_id in ids))


def compose_scenes(source: _Source, rng: Generator) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Endless scenes in which every digit is equally frequent.

    Args:
        source: photographs and digits to draw from.
        rng: the only source of chance.

    Yields:
        image (SIZE, SIZE, 3) uint8 RGB and mask (SIZE, SIZE) uint8 class ids.
    """
    deck = itertools.chain.from_iterable(rng.permutation(10) for _ in itertools.count())
    while True:
        image = _background(source.photos, rng)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for _ in range(rng.integers(0, 3)):
            _paint(image, _polygon(rng), rng.uniform(), rng)
        for _ in range(rng.integers(_DIGITS[0], _DIGITS[1] + 1)):
            digit = next(deck)
            stroke = source.strokes[rng.choice(np.flatnonzero(source.labels == digit))]
            cover = _place(stroke, mask, rng)
            # Color hints at the class, so that minutes of training get somewhere; shape has to tell neighbors and
            # distractors apart.
            _paint(image, cover, rng.normal(digit / 10, _HUES), rng)
            mask[cover > 0.5] = digit + 1
        image += rng.normal(0, rng.uniform(0, 7), image.shape)
        yield image.clip(0, 255).astype(np.uint8), mask


def _load_sources() -> tuple[_Source, _Source]:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise InputError(
            "digits: is made from scikit-learn's data, but that is not there; pip install scikit-learn"
        ) from error
    photos = load_sample_images().images
    strokes, labels = load_digits(return_X_y=True)
    strokes = (strokes.reshape(-1, 8, 8) / 16).astype(np.float32)
    left, right = slice(None, _TRAIN_COLUMNS), slice(_TRAIN_COLUMNS, None)
    first, last = slice(None, _TRAIN_DIGITS), slice(_TRAIN_DIGITS, None)
    return (
        _Source([photo[:, left] for photo in photos], strokes[first], labels[first]),
        _Source([photo[:, right] for photo in photos], strokes[last], labels[last]),
    )


def _background(photos: list[NDArray[np.uint8]], rng: Generator) -> Array:
    """A random square of a photograph as (SIZE, SIZE, 3) float in about 0..255: scaled, flipped, relit."""
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(80, min(photo.shape[:2]) + 1))
    y, x = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    square = cv2.resize(photo[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    square = square[:, :: rng.choice([-1, 1])].astype(np.float32)
    return (square - 128) * rng.uniform(0.6, 1.2) + 128 + rng.uniform(-45, 45)


def _place(stroke: Array, mask: NDArray[np.uint8], rng: Generator) -> Array:
    """How far a digit covers each pixel, (SIZE, SIZE) float in 0..1, at the first place that hides little."""
    for _ in range(_PLACES):
        cover = _draw(stroke, rng)
        under = mask[cover > 0.5]
        before = np.bincount(mask.ravel(), minlength=11)[1:]
        hidden = np.bincount(under, minlength=11)[1:]
        if (hidden <= _HIDDEN * before).all():
            break
    return cover


def _draw(stroke: Array, rng: Generator) -> Array:
    """An 8x8 digit at a random place, size, turn and slant: enlarged smoothly, its edge two pixels soft."""
    scale = rng.uniform(*_HEIGHT) / 8
    turn = np.deg2rad(rng.uniform(-_TURN, _TURN))
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = np.array([[rng.uniform(0.8, 1.1), rng.uniform(-0.1, 0.1)], [0, 1]])
    linear = scale * rotate @ shape
    margin = 3.6 * scale
    center = rng.uniform(margin, SIZE - 1 - margin, 2)
    offset = center - linear @ np.array([5.5, 5.5])  # the middle of the 8x8 digit with its rim of 2
    warp = np.concatenate([linear, offset[:, None]], axis=1)
    field = cv2.warpAffine(np.pad(stroke, 2), warp, (SIZE, SIZE), flags=cv2.INTER_CUBIC)
    slope = 0.5 * scale  # of the field at a stroke's edge, about half the range over a cell
    return np.clip(0.5 + (field - 0.45) * slope, 0, 1).astype(np.float32)


def _polygon(rng: Generator) -> Array:
    """A distractor, (SIZE, SIZE) float in 0..1: painted like a digit, but background."""
    corners = int(rng.integers(3, 7))
    angles = (np.arange(corners) + rng.uniform(0, 0.7, corners)) * 2 * np.pi / corners
    points = rng.uniform(8, 26) * np.stack([np.cos(angles), np.sin(angles)], 1) + rng.uniform(0, SIZE, 2)
    sixteenths = [(points * 16).round().astype(np.int32)]
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    if rng.random() < 0.5:
        cv2.polylines(canvas, sixteenths, True, [255], int(rng.integers(3, 7)), cv2.LINE_AA, shift=4)
    else:
        cv2.fillPoly(canvas, sixteenths, [255], cv2.LINE_AA, shift=4)
    return (canvas / 255).astype(np.float32)


def _paint(image: Array, cover: Array, hue: float, rng: Generator) -> None:
    """Lay a color around `hue` (0..1) over `image` where `cover` is, in place, above a soft shadow."""
    saturation, value = rng.uniform(0.5, 1), rng.uniform(0.5, 1)
    ends = [
        (hue, saturation, value),
        (hue + rng.uniform(-0.04, 0.04), saturation, value * rng.uniform(0.7, 1)),
    ]
    first, last = (255 * np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32) for h, s, v in ends)
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.arange(SIZE, dtype=np.float32) / SIZE - 0.5
    run = np.clip(0.5 + np.cos(angle) * steps[None] + np.sin(angle) * steps[:, None], 0, 1)[..., None]
    dx, dy = rng.integers(-3, 4, 2)
    shadow = np.roll(cv2.GaussianBlur(cover, (0, 0), 2.5), (dy, dx), axis=(0, 1)) * rng.uniform(0, 0.5)
    image *= 1 - shadow[..., None]
    opaque = cover[..., None] * rng.uniform(0.85, 1)
    image *= 1 - opaque
    image += opaque * (first * (1 - run) + last * run)
