"""Images and masks to measure with, made in seconds: of the sizes and formats of known data sets, without the data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

_COARSE, _NOISE = 32, 4
"""Pixels between two colors of an image, and the largest noise on it: files are about as large as photographs'."""


def write_data_set(root: Path, size: tuple[int, int], suffix: str, images: int, classes: int = 21) -> Path:
    """Write a data set of two lists, `labeled` and `unlabeled`, each with all images.

    Args:
        root: a new folder, whose name becomes the data set's.
        size: (width, height) in pixels.
        suffix: of the images, which are those of a camera; masks are PNG.
        images: how many.
        classes: how many; all but the first are objects.

    Returns:
        its YAML.
    """
    rng = np.random.default_rng(0)
    names = [f"{number:04d}" for number in range(images)]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name in names:
        coarse = rng.integers(0, 256, (size[1] // _COARSE + 1, size[0] // _COARSE + 1, 3), dtype=np.uint8)
        noise = rng.integers(-_NOISE, _NOISE + 1, (size[1], size[0], 3))
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR) + noise
        cv2.imwrite(str(root / "images" / f"{name}{suffix}"), image.clip(0, 255).astype(np.uint8))
        mask = rng.integers(0, classes, coarse.shape[:2], dtype=np.uint8)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
    words = [f"class {number}" for number in range(classes)]
    lists = {name: f"{name}.txt" for name in ("labeled", "unlabeled")}
    for file in lists.values():
        (root / file).write_text("\n".join(names))
    description = {"name": root.name, "root": "./", "image": f"images/{{id}}{suffix}", "mask": "masks/{id}.png"}
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump(description | {"classes": words, "objects": words[1:], "lists": lists}))
    return path
