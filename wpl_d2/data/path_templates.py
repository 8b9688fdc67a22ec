"""Templates of paths, such as `images/{id}.jpg`."""

from __future__ import annotations

import re

SLOT = "{id}"
ANY_SUFFIX = ".*"
"""The ending of a template that stands for any image suffix."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


def fill(template: str, image_id: str) -> str:
    """Put an id into a template such as `images/{id}.jpg`."""
    return template.replace(SLOT, image_id)


def extract(template: str, path: str) -> str | None:
    """The id that turns `template` into `path`, the inverse of `fill`; None if there is none."""
    ending = r"\.[^./]+" if template.endswith(ANY_SUFFIX) else ""
    first, *rest = (re.escape(part) for part in template.removesuffix(ANY_SUFFIX).split(SLOT))
    pattern = first + "(?P<id>.+)" + "(?P=id)".join(rest) if rest else first
    match = re.fullmatch(pattern + ending, path)
    return match["id"] if match and rest else None
