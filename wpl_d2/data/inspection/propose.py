"""From a folder of images and masks to the description of a data set, with its lists."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...structures import IGNORE
from ...utils.errors import InputError, suggest
from ...utils.files import write_text
from ..datasets.folder import default_colors
from ..path_templates import extract
from ..value_range import describe_pixels
from .groups import Groups, blocks_of, find_groups
from .held_out import choose_validation
from .known_sets import find_known_layout, find_known_set
from .label_section import describe_labels, few, name_classes
from .layout import TEST, TRAIN, VAL, Layout, find_layout, split_of
from .masks import MaskStatistics, read_masks

LISTS = "lists"
"""The folder, in that of the data set, of the lists that are written."""
_MIN_LABELED = 2
_MAX_SHOWN = 3


@dataclass
class Proposal:
    """What a folder is taken for; classes and objects may be corrected before `write`.

    Attributes:
        root: the folder.
        name: of the data set.
        templates: of images and masks; the second is "" if lists name both.
        classes: names, by class id.
        objects: those of them that are countable.
        colors: (r, g, b) by class id.
        ignore: the masks' value for "no class".
        labels: the format of the labels, as `labels` of a data set's YAML; empty: masks of class ids.
        lists: the lines of each list.
        pixels: what images are, as `channels` and `value_range` of a data set's YAML; empty: 8-bit colors.
        said: what was decided and why, a line each.
    """

    root: Path
    name: str
    templates: tuple[str, str]
    classes: list[str]
    objects: list[str]
    colors: list[tuple[int, int, int]]
    ignore: int
    lists: dict[str, list[str]]
    labels: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The YAML that describes the data set."""
        return self.root / f"{self.name}.yaml"

    def summary(self) -> str:
        """What was decided and why, for a person."""
        return "\n".join([str(self.root), *(f"- {line}" for line in self.said)])

    def rename_classes(self, names: Sequence[str]) -> None:
        """Give the classes other names, objects and all.

        Raises:
            InputError: there are too few, too many or equal ones.
        """
        if len(names) != len(self.classes) or len(set(names)) != len(names):
            raise InputError(
                f"classes: {len(set(names))} different names; give {len(self.classes)}, with commas between"
            )
        self.objects = [names[self.classes.index(name)] for name in self.objects]
        new = dict(zip(self.classes, names, strict=True))
        if "values" in self.labels:
            self.labels["values"] = {value: new.get(name, name) for value, name in self.labels["values"].items()}
        if self.labels.get("format") == "class_masks":
            self.labels["files"] = {new[name]: self.labels["files"].replace("{class}", name) for name in new}
        elif "uncovered" in self.labels:
            self.labels["uncovered"] = new.get(self.labels["uncovered"], self.labels["uncovered"])
            known = {name: name for name in self.classes} | self.labels.get("categories", {})
            renamed = {category: new.get(name, name) for category, name in known.items()}
            self.labels["categories"] = {old: name for old, name in renamed.items() if old != name}
        self.classes = list(names)

    def choose_objects(self, names: Sequence[str]) -> None:
        """Say which classes are countable.

        Raises:
            InputError: one is no class.
        """
        for name in names:
            if name not in self.classes:
                raise InputError(f"objects: {name!r} is not a class; {suggest(name, self.classes)}")
        self.objects = [name for name in self.classes if name in names]

    def files(self) -> dict[Path, str]:
        """The content of the files that describe the data set."""
        lists = {
            self.root / LISTS / f"{name}.txt": "".join(f"{x}\n" for x in lines) for name, lines in self.lists.items()
        }
        return {**lists, self.path: self._description()}

    def check_free(self) -> None:
        """Refuse to replace files.

        Raises:
            InputError: one of those that `write` writes is there already.
        """
        there = [file for file in self.files() if file.exists()]
        if there:
            raise InputError(f"{there[-1]}: is there already; --force replaces it, and what was changed in it")

    def write(self) -> None:
        """Write the lists, then the YAML, in place of what is there.

        Raises:
            InputError: a file cannot be written.
        """
        for file, text in self.files().items():
            file.parent.mkdir(exist_ok=True)
            write_text(file, text)

    def _description(self) -> str:
        values = {
            "name": self.name,
            "root": ".",
            "image": self.templates[0],
            **self.pixels,
            **({"mask": self.templates[1]} if self.templates[1] else {}),
            **({"labels": self.labels} if self.labels else {}),
            "classes": self.classes,
            "objects": self.objects,
            **({} if self.labels and self.ignore == IGNORE else {"ignore": self.ignore}),
            "colors": [list(color) for color in self.colors],
            "lists": {name: f"{LISTS}/{name}.txt" for name in self.lists},
        }
        text = yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=110)
        for key, comment in _COMMENTS.items():
            text = text.replace(f"\n{key}:", f"\n# {comment}\n{key}:", 1)
        return text


_COMMENTS = {
    "channels": "What the images' channels are: call colors red, green and blue.",
    "value_range": "The images' values that are black and white; what lies outside is cut off.",
    "labels": "How labels are stored; everything reads them as class ids.",
    "classes": "In the order of the class ids, from 0.",
    "objects": "Countable things: they get boxes and a detector.",
    "ignore": "The masks' value for pixels without a class.",
}


def propose(
    root: Path,
    images: str = "*",
    masks: str = "*",
    groups: str = "",
    val_share: float = 0.2,
    seed: int = 0,
    ignore: str = "",
    known: str = "",
) -> Proposal:
    """Look at a folder and describe it as a data set.

    Args:
        root: the folder.
        images: pattern of the images' paths, see `find_layout`.
        masks: of the masks' paths.
        groups: pattern of sequences, see `find_groups`.
        val_share: share of the labeled images that validate, unless folders say which do.
        seed: of the choice of them.
        ignore: the masks' value for "no class" if it is known, "none" if there is none.
        known: the name of a public data set that the folder holds; the patterns are then its own.

    Raises:
        AmbiguousLabelsError: the labels can be read in several ways.
        InputError: the folder holds no images with masks that can be trained on; the message says what it holds.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; give the one that holds images and masks")
    if not os.access(root, os.W_OK):
        mend = "copy or link images and masks to a folder of yours"
        raise InputError(f"{root}: cannot be written to, and YAML and lists have their place there; {mend}")
    layout = find_known_layout(root, find_known_set(known)) if known else find_layout(root, images, masks)
    statistics = read_masks(layout, ignore)
    named = name_classes(layout, statistics)
    labels, seen = describe_labels(layout, statistics, named.names)
    pixels, range_reasons = describe_pixels([root / image for image in (*layout.masks, *layout.unlabeled)])
    lists, reasons = _make_lists(layout, statistics, groups, val_share, seed)
    objects = [named.names[value] for value in statistics.objects()]
    said = [
        *_say_layout(layout, statistics),
        *range_reasons,
        *seen,
        f"{len(named.names)} classes, {named.source}: {few(named.names)}",
        f"objects, of which most that is seen is not cut off by the image's border: {few(objects) or 'none'}",
        *reasons,
    ]
    colors = named.colors or statistics.palette[: len(named.names)]
    return Proposal(
        root=root,
        name=re.sub(r"[^A-Za-z0-9_-]+", "_", root.resolve().name).strip("_-") or "data",
        templates=layout.templates,
        classes=list(named.names),
        objects=objects,
        colors=list(colors) if len(colors) == len(named.names) else default_colors(len(named.names)),
        ignore=statistics.meaning.ignore,
        lists={name: [_line(layout, image) for image in found] for name, found in lists.items() if found},
        labels=labels,
        pixels=pixels,
        said=said,
    )


def _say_layout(layout: Layout, statistics: MaskStatistics) -> list[str]:
    image, mask = next(iter(layout.masks.items()))
    height, width = statistics.size
    what, count = "masks" if layout.has_masks else "labels", len(statistics.present)
    read = f" ({count} of the {what} were read)" if count < len(layout.masks) else ""
    said = [
        f"{len(layout.masks)} images with {what}, such as {image} and {mask}, and {len(layout.unlabeled)} without; "
        f"{width}x{height} (width x height) in the median{read}"
    ]
    if layout.alternatives:
        said.append(f"passed over: masks such as {', '.join(layout.alternatives[:_MAX_SHOWN])}; --masks takes others")
    if layout.unmatched:
        said.append(f"left out: {len(layout.unmatched)} {what} without an image, such as {layout.unmatched[0]}")
    unused = [str(value) for value in range(len(statistics.meaning.values)) if value not in statistics.images]
    if unused:
        said.append(f"no {what[:-1]} holds {few(unused)}: these classes are never learned, nor predicted")
    if statistics.ignored and layout.has_masks:
        void = statistics.meaning.ignore
        said.append(f"pixels of the value {void} have no class ({statistics.ignored} masks hold it)")
    return said


def _make_lists(
    layout: Layout, statistics: MaskStatistics, pattern: str, share: float, seed: int
) -> tuple[dict[str, list[str]], list[str]]:
    """The images of each list, and why they are in it."""
    splits = {image: split_of(image) for image in (*layout.masks, *layout.unlabeled)}
    test = [image for image in layout.masks if splits[image] == TEST]
    labeled = [image for image in layout.masks if splits[image] != TEST]
    held_out = [image for image in layout.unlabeled if splits[image] in (TEST, VAL)]
    unlabeled = [image for image in layout.unlabeled if splits[image] not in (TEST, VAL)]
    said = []
    if held_out:
        said.append(
            f"left out: {len(held_out)} images without masks in folders for validation or test, as {held_out[0]}"
        )
    if {splits[image] for image in labeled} >= {TRAIN, VAL}:
        val = [image for image in labeled if splits[image] == VAL]
        said.append(f"val: the {len(val)} images with masks in folders that are called so")
    else:
        val, unlabeled, reasons = _hold_out(layout, statistics, labeled, unlabeled, pattern, share, seed)
        said += reasons
    held = set(val)
    labeled = [image for image in labeled if image not in held]
    said.append(f"lists: {len(labeled)} labeled, {len(unlabeled)} unlabeled, {len(val)} val, {len(test)} test")
    return {"labeled": labeled, "unlabeled": unlabeled, "val": val, "test": test}, said


def _hold_out(
    layout: Layout,
    statistics: MaskStatistics,
    labeled: Sequence[str],
    unlabeled: Sequence[str],
    pattern: str,
    share: float,
    seed: int,
) -> tuple[list[str], list[str], list[str]]:
    """Images that validate, unlabeled images without those of their sequences, and the reasons."""
    if len(labeled) < _MIN_LABELED:
        raise InputError(
            f"{layout.root}: {len(labeled)} image has a mask that may be trained on; add masks, so that there are "
            "some to train on and others to validate with"
        )
    images = sorted((*labeled, *unlabeled))
    groups = find_groups(layout.root, images, pattern)
    if len({groups.of[image] for image in labeled}) < _MIN_LABELED:
        groups = blocks_of(groups, images)
    if len({groups.of[image] for image in labeled}) < _MIN_LABELED:
        groups = Groups({image: image for image in images})
    classes = {image: statistics.present.get(image, frozenset()) for image in labeled}
    val = choose_validation(classes, groups.of, share, seed)
    theirs = {groups.of[image] for image in val}
    rest = [image for image in unlabeled if groups.of[image] not in theirs]
    said = [
        f"val: {len(val)} of {len(labeled)} labeled images, chosen by seed {seed} so that they show all classes alike"
    ]
    if groups.reason:
        said.append(
            f"{groups.reason}; val is of {len(theirs)} of them, of which nothing is trained on (--groups PATTERN)"
        )
    if len(rest) < len(unlabeled):
        said.append(f"left out: {len(unlabeled) - len(rest)} unlabeled images of the sequences that validate")
    return val, rest, said


def _line(layout: Layout, image: str) -> str:
    """The line of a list that stands for an image: its id, or where no template fits the paths of image and mask."""
    image_template, mask_template = layout.templates
    mask = layout.masks.get(image, "")
    by_id = bool(mask_template) or not layout.has_masks
    line = str(extract(image_template, image)) if by_id else f"{image}\t{mask}".rstrip()
    return f"{line}\t" if " " in line and "\t" not in line else line
