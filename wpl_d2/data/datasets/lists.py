"""Reading the lists that say which images belong together, in the formats in which they are published.

A line is one of:

- an id (`2007_000032`), put into the description's templates;
- the path of an image, relative to the data set's root
(`leftImg8bit/train/ulm/ulm_000140_000019_leftImg8bit.png`):
  the id is what the image template leaves open, and the mask follows from the id;
- the paths of an image and of its mask, with a tab or a space between them.

A line with a tab is divided there alone, so that what is before it may have spaces. Blank lines are skipped and the
last line may lack its newline.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import InputError

SLOT = "{id}"
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class Entry(NamedTuple):
    """One line of a list: an id and paths below the data set's root; `mask` is "" where none is known."""

    id: str
    image: str
    mask: str


def fill(template: str, image_id: str) -> str:
    """Put an id into a template such as `images/{id}.jpg`."""
    return template.replace(SLOT, image_id)


def extract(template: str, path: str) -> str | None:
    """The id with which `template` gives `path`, or None where it cannot."""
    first, *rest = (re.escape(part) for part in template.split(SLOT))
    pattern = first + "(?P<id>.+)" + "(?P=id)".join(rest) if rest else first
    match = re.fullmatch(pattern, path)
    return match["id"] if match and rest else None


def parse_line(line: str, image: str, mask: str) -> Entry:
    """Read one line that is not blank.

    Args:
        line: the line, without its newline.
        image: template of image paths.
        mask: template of mask paths, "" where the data set has none.

    Raises:
        InputError: the line has more than two fields, or two of which the first is no image.
    """
    fields = [field.strip() for field in line.split("\t") if field.strip()] if "\t" in line else line.split()
    if len(fields) > 2:
        raise InputError(
            f"{line.strip()!r} has {len(fields)} fields; write an id, an image or an image and its mask, with a tab "
            "between paths that have spaces"
        )
    name = fields[0]
    is_image = PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES
    if len(fields) == 2 and not is_image:
        raise InputError(
            f"{line.strip()!r} is no image {name!r} and its mask {fields[1]!r}; write a tab between paths that have "
            "spaces, and after an id that has some"
        )
    if len(fields) == 1 and not is_image:
        return Entry(name, fill(image, name), fill(mask, name))
    image_id = extract(image, name)
    if len(fields) == 2:
        return Entry(image_id or _without_suffix(name), name, fields[1])
    return Entry(image_id or _without_suffix(name), name, fill(mask, image_id) if image_id else "")


def read_list(file: Path, image: str, mask: str) -> list[Entry]:
    """Read a list file.

    Args:
        file: a text file in any of the formats above, the formats may be mixed.
        image: template of image paths.
        mask: template of mask paths, "" where the data set has none.

    Raises:
        InputError: `file, line N: what is wrong; how to mend it`.
    """
    entries = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(parse_line(line, image, mask))
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
    return entries


def _without_suffix(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))
