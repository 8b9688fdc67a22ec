"""A data set described by one YAML file.

```yaml
name: camvid
root: camvid               # under $DETECTRON2_DATASETS (default ./datasets); absolute; ./ ../ from the YAML; or s3://...
image: images/{id}.jpg     # paths below the root, {id} is what the lists name; or a folder: `images` is images/{id}.*
mask: masks/{id}.png       # the same; optional; unlabeled images may lack the file
labels: {format: ..., ...} # optional: how labels are stored that are no masks of class ids (data/labels)
classes: [sky, building]   # the class ids of the masks, in this order, from 0
objects: [building]        # optional: the classes that get boxes and a detector
ignore: 255                # optional: the masks' value for "no class"
channels: [red, green, blue, nir]  # optional: what the images' channels are, or their number; without: 8-bit RGB
value_range: [0, 10000]    # optional: the images' values that are black and white, or one [black, white] each channel
exif: apply                # optional: turn images and masks as their EXIF orientation says; or ignore it
colors: [[0, 0, 0], ...]   # optional: one [r, g, b] for each class
dataset_ids: [7, 8]        # optional: the ids under which results for each class are submitted
lists: {val: splits/val.txt, "{split}_labeled": "splits/{split}_labeled.txt"}  # below the root; formats in lists.py
splits: ["1_16", "1_8"]    # optional: values of {split} that are known before their files are there
generator: digits          # optional: makes the root where it is missing (generators.py)
```

Every list becomes a data set NAME_LIST of Detectron2's `DatasetCatalog`, such as `camvid_val`. A list with {split}
stands for one list for each file that fits, so that a split made later needs no line here, and for each of `splits`,
so that a published split has its name, and a helpful message, before it was imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.colormap import colormap

from ...config.presets import ROOT
from ...structures import IGNORE
from ...utils.buckets import is_url
from ...utils.errors import InputError, suggest
from ...utils.files import is_system_file, read_yaml
from ..image_header import APPLY
from ..labels import LabelFormat, ListedImage, attach_labels, build_label_format
from ..path_templates import SLOT, extract, fill
from ..pixel_values import RGB, PixelLayout
from ..windows import split_huge
from .bucket_copy import copy_of_bucket
from .lists import SuffixResolver, read_list
from .yaml_values import SPLIT, convert

_REGISTERED: dict[str, Description] = {}
_UNFIT = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^[.-]|^\s|\s$')
"""What some file system or shell rejects in a name, or misunderstands."""
_LONGEST_NAME = 100
_DEEP_IGNORE = 65535  # of masks of 16 bits


@dataclass(frozen=True)
class Description:
    """What a data set's YAML says; see the module's docstring for the fields.

    Attributes:
        root: the absolute folder of the data set.
        lists: file by name, {split} filled in.
        optional: the lists whose name had {split}; their files need not be there.
        path: the YAML file, for messages.
    """

    name: str
    root: Path
    image: str
    classes: tuple[str, ...]
    lists: Mapping[str, str]
    mask: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    objects: tuple[str, ...] = ()
    ignore: int = IGNORE
    channels: tuple[str, ...] = RGB.channels
    value_range: tuple[tuple[float, float], ...] = RGB.value_range
    exif: str = APPLY
    colors: tuple[tuple[int, int, int], ...] = ()
    dataset_ids: tuple[int, ...] = ()
    splits: tuple[str, ...] = ()
    generator: str = ""
    optional: frozenset[str] = frozenset()
    path: Path = field(default=Path("description"), compare=False)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: one is invalid.
        """
        for what, name in (("'name'", self.name), *(("'lists'", name) for name in self.lists)):
            self._demand(
                not _UNFIT.search(name) and len(name) <= _LONGEST_NAME,
                f"{what}: {name!r} is unfit for a file's name; write up to {_LONGEST_NAME} letters, digits, _ and -",
            )
        for key, template in (("image", self.image), ("mask", self.mask)):
            mend = f"write a folder, or a path such as {key}s/{SLOT}.png"
            self._demand(SLOT in template or (key, template) == ("mask", ""), f"'{key}' has no {SLOT}; {mend}")
        count = len(self.classes)
        self._demand(0 < count <= IGNORE, f"'classes' has {count} names; give 1 to {IGNORE}")
        self._demand(len(set(self.classes)) == count, "'classes' has a name twice; make them unique")
        self._demand(bool(self.lists), "'lists' is empty; name at least one list file")
        for name in self.objects:
            self._demand(name in self.classes, f"the object {name!r} is not a class; {suggest(name, self.classes)}")
        self._demand(len(set(self.objects)) == len(self.objects), "'objects' has a name twice; make them unique")
        self._demand(
            bool(self.labels) or not 0 <= self.ignore < count,
            f"'ignore' is {self.ignore}, a class id; use a value from {count} to {IGNORE} in the masks",
        )
        self._demand(
            0 <= self.ignore <= IGNORE or self.ignore == _DEEP_IGNORE,
            f"'ignore' is {self.ignore}, which no mask can hold; use a value from {count} to {IGNORE} (or "
            f"{_DEEP_IGNORE}, in masks of 16 bits)",
        )
        channels = len(self.channels)
        self._demand(0 < channels == len(set(self.channels)), "'channels' has no name, or one twice; make them unique")
        self._demand(
            len(self.value_range) in (0, 1, channels),
            f"'value_range' has {len(self.value_range)} pairs; give one, or one to each of {channels} channels",
        )
        self._demand(
            len(self.colors) in (0, count),
            f"'colors' has {len(self.colors)} entries; give one to each of {count} classes",
        )
        self._demand(
            len(set(self.dataset_ids)) == len(self.dataset_ids) and len(self.dataset_ids) in (0, count),
            f"'dataset_ids' has {len(set(self.dataset_ids))} ids; give another one to each of {count} classes",
        )
        _ = self.label_format

    def _demand(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise InputError(f"{self.path}: {otherwise}")

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Semantic class ids of `objects`: detector class i is semantic class `object_ids[i]`."""
        return tuple(self.classes.index(name) for name in self.objects)

    @property
    def layout(self) -> PixelLayout:
        """How the images' pixels are read."""
        ranges = self.value_range if len(self.value_range) != 1 else self.value_range * len(self.channels)
        return PixelLayout(self.channels, ranges)

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        """One (r, g, b) for each class: `colors`, or Detectron2's color map where there are none."""
        return list(self.colors) or default_colors(len(self.classes))

    @cached_property
    def label_format(self) -> LabelFormat | None:
        """How labels are stored; None: as masks of class ids."""
        return build_label_format(self)

    @property
    def mask_ignore(self) -> int:
        """The value for "no class" in the masks that the records name."""
        return IGNORE if self.label_format else self.ignore

    def present(self) -> list[str]:
        """The names of the lists that should be there: all but optional ones without a file."""
        return [n for n, file in self.lists.items() if n not in self.optional or (self.root / file).is_file()]

    def records(self, name: str, labels: bool = True) -> list[dict[str, Any]]:
        """The images of one list as Detectron2 dataset dicts.

        Args:
            name: a key of `lists`.
            labels: whether to look for labels. Those of another format than masks of class ids are then converted,
                unless that is done.

        Returns:
            A dict for each line: `file_name`, `image_id`; `sem_seg_file_name` if the mask exists, else
            `sem_seg_missing` if the description expects one; `sem_seg_ignore`, the mask's value for "no class"; `exif`
            if the orientation of image and mask must not be applied; `layout` if the images are not 8-bit RGB. See
            `attach_labels` for labels of other formats. Of a huge image there is a dict for each `window`
            (`split_huge`).

        Raises:
            InputError: the list is missing, a line cannot be read, or more than one file fits it.
        """
        images = self.listed(name)
        layout = self.layout
        how = ({} if self.exif == APPLY else {"exif": self.exif}) | ({} if layout == RGB else {"layout": layout})
        records: list[dict[str, Any]] = [{"file_name": image.file, "image_id": image.id, **how} for image in images]
        if labels and self.label_format:
            attach_labels(self.label_format, records, images)
        elif labels:
            for record, image in zip(records, images, strict=True):
                if image.mask:
                    record["sem_seg_file_name" if os.path.isfile(image.mask) else "sem_seg_missing"] = image.mask
                    record["sem_seg_ignore"] = self.ignore
        return [part for record in records for part in split_huge(record)]

    def listed(self, name: str) -> list[ListedImage]:
        """The images of one list, in the order of its lines; args and errors as of `records`."""
        file = self.root / self.lists[name]
        if not file.is_file():
            raise InputError(
                f"{file}: the list {name!r} of {self.path} is missing; put the data set there, or set "
                f"DETECTRON2_DATASETS to the folder that holds it"
                f"{'; tools/prepare_dataset.py imports published lists' if name in self.optional else ''}"
            )
        suffixes = SuffixResolver(self.root)

        def find(path: str) -> str:
            return str(self.root / suffixes.resolve(path)) if path else ""

        entries = read_list(file, self.image, self.mask, self.root)
        return [ListedImage(entry.id, find(entry.image), find(entry.mask)) for entry in entries]


def class_names_and_colors(metadata: Mapping[str, Any], count: int) -> tuple[list[str], list[tuple[int, int, int]]]:
    """The names and colors of `count` classes: from a data set's metadata, or defaults where it has none."""
    names = metadata.get("stuff_classes") or default_names(count)
    return list(names), [tuple(color) for color in metadata.get("stuff_colors") or default_colors(count)]


def default_names(count: int) -> list[str]:
    """Placeholder names for `count` classes."""
    return [f"class {index}" for index in range(count)]


def default_colors(count: int) -> list[tuple[int, int, int]]:
    """One (r, g, b) of Detectron2's color map for each of `count` classes."""
    table = colormap(rgb=True, maximum=255).astype(int).tolist()
    return [tuple(table[i % len(table)]) for i in range(count)]


def load_description(path: str | Path, root: Path | None = None) -> Description:
    """Read and check a data set's YAML file.

    Args:
        path: the file; a relative path is tried as given, then from where the presets are.
        root: the data set's folder, in place of what the file says.

    Raises:
        InputError: there is no such file, or it is no valid description.
    """
    file = Path(path).expanduser()
    file = file if file.is_file() else ROOT / file
    if not file.is_file():
        raise InputError(f"{path}: no such file; give DATASETS.DESCRIPTION a data set's YAML, see configs/datasets")
    raw = read_yaml(file)
    if {"DATASETS", "_BASE_"} & raw.keys():
        raise InputError(f"{file}: is a config, not a data set's description; give it as --config-file")
    keys = {f.name: f for f in fields(Description) if f.name not in ("optional", "path")}
    for key in raw:
        if key not in keys:
            raise InputError(f"{file}: unknown key {key!r}; {suggest(str(key), keys)}")
    for key, spec in keys.items():
        if spec.default is spec.default_factory is MISSING and key not in raw:
            raise InputError(f"{file}: the key {key!r} is missing; add it, see configs/datasets/camvid.yaml")
    values: dict[str, Any] = {key: convert(key, value, f"{file}: '{key}'") for key, value in raw.items()}
    values |= {"root": root.absolute() if root else _resolve_root(values["root"], file), "path": file}
    lists = _fill_in_splits(values["lists"], values.get("splits", ()), values["root"])
    values |= {"lists": lists, "optional": frozenset(lists.keys() - values["lists"].keys())}
    return Description(**values)


def register(description: Description) -> None:
    """Register every list as `NAME_LIST`, with its metadata. A second call with the same description does nothing.

    Metadata: `stuff_classes`, `stuff_colors` of all classes; `thing_classes`, `thing_colors`, `object_ids` of
    the objects; `ignore_label` (255, as in every label map of the package) and `mask_ignore` (as in the
    files), `exif`; with `dataset_ids`, `stuff_dataset_id_to_contiguous_id` and `thing_dataset_id_to_contiguous_id`, by
    which Detectron2's evaluators write results.

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
            mask_ignore=description.mask_ignore,
            exif=description.exif,
            evaluator_type="sem_seg",
            description=str(description.path),
            **_id_metadata(description),
        )
        _REGISTERED[name] = description


def image_records(name: str) -> list[dict[str, Any]]:
    """The dataset dicts of a list that is trained on without labels, which are not looked for.

    Args:
        name: in the `DatasetCatalog`.

    Raises:
        InputError: as of `Description.records`.
    """
    if name not in _REGISTERED:
        return DatasetCatalog.get(name)
    description = _REGISTERED[name]
    return description.records(name.removeprefix(f"{description.name}_"), labels=False)


def _id_metadata(description: Description) -> dict[str, dict[int, int]]:
    ids = description.dataset_ids
    if not ids:
        return {}
    return {
        "stuff_dataset_id_to_contiguous_id": {ids[i]: i for i in range(len(ids))},
        "thing_dataset_id_to_contiguous_id": {ids[i]: thing for thing, i in enumerate(description.object_ids)},
    }


def _fill_in_splits(lists: Mapping[str, str], splits: Sequence[str], root: Path) -> dict[str, str]:
    """Expand the lists with {split} to one list for each known split and each split that has a file."""
    filled = {}
    for name, file in lists.items():
        if SPLIT not in file:
            filled[name] = file
            continue
        pattern = file.replace(SPLIT, SLOT)
        paths = sorted(path.relative_to(root) for path in root.glob(fill(pattern, "*")))
        found = (extract(pattern, path.as_posix()) for path in paths if not is_system_file(path))
        for split in (*splits, *filter(None, found)):
            filled[name.replace(SPLIT, split)] = file.replace(SPLIT, split)
    return filled


def _resolve_root(root: str, file: Path) -> Path:
    if is_url(root):
        return copy_of_bucket(root)
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    if root in (".", "..") or root.startswith(("./", "../")):
        base = file.parent
    return Path(os.path.abspath(base / Path(root).expanduser()))
