"""Names of classes from a text file beside the images, as tools that draw masks write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...utils.errors import InputError
from ...utils.files import read_text

_FILES = (
    *("classes.txt", "labels.txt", "class_names.txt", "classes.names", "obj.names", "names.txt"),
    *("labelmap.txt", "label_colors.txt", "_classes.csv", "class_dict.csv"),  # of CVAT, CamVid, Roboflow and others
)
_SPACE = r"[\s:,;]+"
_COLOR = rf"\d+{_SPACE}\d+{_SPACE}\d+"
_LINE = re.compile(
    rf"(?P<first>{_COLOR}){_SPACE}(?P<named>[^\d\s].*?)[\s:,;]*"
    rf"|(?:(?P<id>\d+){_SPACE})?(?P<name>.*?)(?:{_SPACE}(?P<color>{_COLOR}))?[\s:,;]*"
)


@dataclass(frozen=True)
class NamedClasses:
    """Names, and where there are some colors, by class id; `source` says where they are from."""

    names: tuple[str, ...]
    source: str
    colors: tuple[tuple[int, int, int], ...] = ()


def read_class_names(root: Path, count: int) -> NamedClasses | None:
    """Read the names of the classes, a line each: `name`, `id name`, or with `r g b` behind or before it.

    Args:
        root: the folder whose files are tried, `classes.txt` first, then those of its folders.
        count: how many classes the masks have. If there is one name less, the first class is "background".

    Returns:
        None if there is no such file.

    Raises:
        InputError: a file has too few names, or some twice.
    """
    places = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())]
    file = next((place / name for place in places for name in _FILES if (place / name).is_file()), None)
    if file is None:
        return None
    text = [line.strip() for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    if file.suffix == ".csv":
        text = text[1:]  # what the columns are
    lines = [match for line in text if (match := _LINE.fullmatch(line))]
    ids = sorted(int(line["id"]) for line in lines if line["id"])
    first = ids[0] if ids else 0
    if ids and ids != list(range(first, first + len(lines))):
        raise InputError(f"{file}: numbers its classes {ids}; give each line the value in the masks, without gaps")
    if ids:
        lines.sort(key=lambda line: int(line["id"]))
    names = [line["name"] or line["named"] for line in lines]
    triples = [re.findall(r"\d+", color) for line in lines if (color := line["color"] or line["first"])]
    colors = [(int(red), int(green), int(blue)) for red, green, blue in triples]
    source = f"named by {file.name}"
    if len(names) == count - 1 or first == 1:
        names, colors = ["background", *names], [(0, 0, 0), *colors]
        source += ", which names none for the value 0"
    if len(names) < count or len(set(names)) != len(names):
        raise InputError(
            f"{file}: has {len(set(names))} different names, and the masks have {count} classes; give each class a "
            "line, in the order of the values from 0"
        )
    return NamedClasses(tuple(names), source, tuple(colors) if len(colors) == len(names) else ())
