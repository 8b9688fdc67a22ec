"""A data set described by one YAML file.

    name: camvid
    root: camvid               # under $DETECTRON2_DATASETS (default ./datasets); absolute; or ./ ../ from the
    YAML image: images/{id}.jpg     # paths below the root; {id} is what the lists name mask: masks/{id}.png
    # optional; unlabeled images may lack the file classes: [sky, building]   # the class ids of the masks, in
    this order, from 0 objects: [building]        # optional: the classes that get boxes and a detector
    ignore: 255                # optional: the masks' value for "no class" colors: [[0, 0, 0], ...]   #
    optional: one [r, g, b] for each class lists: {train: splits/train.txt, val: splits/val.txt}    # below
    the root; formats in lists.py generator: digits          # optional: makes the root where it is missing
    (generators.py)

Every list becomes a data set NAME_LIST of Detectron2's `DatasetCatalog`, such as `camvid_val`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.colormap import colormap

from ...errors import InputError, nearest
from ...structures import IGNORE
from .lists import SLOT, read_list

_REPOSITORY = Path(__file__).resolve().parents[3]
_REGISTERED: dict[str, Description] = {}


@dataclass(frozen=True)
class Description:
    """What a data set's YAML says; see the module's docstring for the fields.

    Attributes:
        root: the absolute folder of the data set.
        path: the YAML file, for messages.
    """

    name: str
    root: Path
    image: str
    classes: tuple[str, ...]
    lists: Mapping[str, str]
    mask: str = ""
    objects: tuple[str, ...] = ()
    ignore: int = IGNORE
    colors: tuple[tuple[int, int, int], ...] = ()
    generator: str = ""
    path: Path = field(default=Path("description"), compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            InputError: `file: what is wrong; how to mend it`.
        """
        self._demand(SLOT in self.image, f"'image' has no {SLOT}; add it")
        self._demand(SLOT in self.mask or not self.mask, f"'mask' has no {SLOT}; add it")
        count = len(self.classes)
        self._demand(0 < count <= IGNORE, f"'classes' has {count} names; give 1 to {IGNORE}")
        self._demand(len(set(self.classes)) == count, "'classes' has a name twice; make them unique")
        self._demand(bool(self.lists), "'lists' is empty; name at least one list file")
        for name in self.objects:
            self._demand(name in self.classes, f"the object {name!r} is no class; {nearest(name, self.classes)}")
        self._demand(len(set(self.objects)) == len(self.objects), "'objects' has a name twice; make them unique")
        self._demand(
            not 0 <= self.ignore < count,
            f"'ignore' is {self.ignore}, a class id; use a value from {count} to {IGNORE} in the masks",
        )
        self._demand(
            len(self.colors) in (0, count),
            f"'colors' has {len(self.colors)} entries; give one to each of {count} classes",
        )

    def _demand(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise InputError(f"{self.path}: {otherwise}")

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Semantic class ids of `objects`: detector class i is semantic class `object_ids[i]`."""
        return tuple(self.classes.index(name) for name in self.objects)

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        """One (r, g, b) for each class: `colors`, or Detectron2's colour map where there are none."""
        table = colormap(rgb=True, maximum=255).astype(int).tolist()
        return list(self.colors) or [tuple(table[i % len(table)]) for i in range(len(self.classes))]

    def records(self, name: str) -> list[dict[str, Any]]:
        """The images of one list as Detectron2 dataset dicts.

        Args:
            name: a key of `lists`.

        Returns:
            A dict for each line: `file_name`, `image_id`; `sem_seg_file_name` if there is such a file, else
            `sem_seg_missing` if the description expects one; `sem_seg_ignore`, the file's value for "no
            class".

        Raises:
            InputError: the list file is missing.
            InputError: a line cannot be read.
        """
        file = self.root / self.lists[name]
        if not file.is_file():
            raise InputError(
                f"{file}: the list {name!r} of {self.path} is missing; put the data set there, or set "
                f"DETECTRON2_DATASETS to the folder that holds it"
            )
        records = []
        for entry in read_list(file, self.image, self.mask):
            record: dict[str, Any] = {"file_name": str(self.root / entry.image), "image_id": entry.id}
            if entry.mask:
                mask = str(self.root / entry.mask)
                record["sem_seg_file_name" if os.path.isfile(mask) else "sem_seg_missing"] = mask
                record["sem_seg_ignore"] = self.ignore
            records.append(record)
        return records


def load_description(path: str | Path) -> Description:
    """Read and check a data set's YAML file.

    Args:
        path: the file; a relative path is tried as given, then from the repository's root.

    Raises:
        InputError: there is no such file.
        InputError: `file: what is wrong; how to mend it`.
    """
    file = Path(path).expanduser()
    file = file if file.is_file() else _REPOSITORY / file
    if not file.is_file():
        raise InputError(f"{path}: no such file; give DATASETS.DESCRIPTION a data set's YAML, see configs/datasets")
    raw = _read_yaml(file)
    keys = {f.name: f for f in fields(Description) if f.name != "path"}
    for key in raw:
        if key not in keys:
            raise InputError(f"{file}: unknown key {key!r}; {nearest(str(key), keys)}")
    for key, spec in keys.items():
        if spec.default is MISSING and key not in raw:
            raise InputError(f"{file}: the key {key!r} is missing; add it, see configs/datasets/camvid.yaml")
    values: dict[str, Any] = {key: _CONVERT.get(key, _text)(value, f"{file}: '{key}'") for key, value in raw.items()}
    values |= {"root": _resolve_root(values["root"], file), "path": file}
    return Description(**values)


def register(description: Description) -> None:
    """Register every list as `NAME_LIST`, with its metadata. Registering the same again changes nothing.

    Metadata: `stuff_classes`, `stuff_colors` of all classes; `thing_classes`, `thing_colors`, `object_ids` of
    the objects; `ignore_label` (255, as in every label map of the package) and `mask_ignore` (as in the
    files).

    Raises:
        InputError: a name is taken by another description.
    """
    for list_name in description.lists:
        name = f"{description.name}_{list_name}"
        if _REGISTERED.get(name) == description:
            continue
        if name in DatasetCatalog:
            raise InputError(
                f"{description.path}: the data set {name!r} is already registered by "
                f"{_REGISTERED[name].path if name in _REGISTERED else 'other code'}; choose another 'name'"
            )
        DatasetCatalog.register(name, partial(description.records, list_name))
        MetadataCatalog.get(name).set(
            stuff_classes=list(description.classes),
            stuff_colors=description.palette,
            thing_classes=list(description.objects),
            thing_colors=[description.palette[i] for i in description.object_ids],
            object_ids=description.object_ids,
            ignore_label=IGNORE,
            mask_ignore=description.ignore,
            evaluator_type="sem_seg",
            description=str(description.path),
        )
        _REGISTERED[name] = description


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.constructor.ConstructorError as error:
        raise InputError(
            f"{file}: is refused, {error.problem}; write it without YAML tags, which can run code"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: is not YAML ({error}); mend that line") from None
    if not isinstance(raw, dict):
        raise InputError(f"{file}: is not a mapping of keys to values; see configs/datasets/camvid.yaml")
    return raw


def _resolve_root(root: str, file: Path) -> Path:
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    if root in (".", "..") or root.startswith(("./", "../")):
        base = file.parent
    return Path(os.path.abspath(base / Path(root).expanduser()))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(
            f"{where}: {value!r} is not text; write text, in quotes where YAML takes it for something else"
        )
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {value!r} is not a list; write [first, second]")
    return tuple(_text(item, where) for item in value)


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: {value!r} is not an integer; write one, such as 255")
    return value


def _colors(value: Any, where: str) -> tuple[tuple[int, int, int], ...]:
    colors = value if isinstance(value, list) else [value]
    for color in colors:
        triple = isinstance(color, list) and len(color) == 3
        if not triple or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
            raise InputError(f"{where}: {color!r} is not a colour; write [r, g, b], each from 0 to 255")
    return tuple((r, g, b) for r, g, b in colors)


def _lists(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {value!r} is not a mapping; write {{name: file}}")
    return {_text(key, where): _text(file, where) for key, file in value.items()}


_CONVERT: dict[str, Callable[[Any, str], Any]] = {
    "classes": _texts,
    "objects": _texts,
    "ignore": _integer,
    "colors": _colors,
    "lists": _lists,
}
