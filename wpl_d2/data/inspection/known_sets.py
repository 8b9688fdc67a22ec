"""Public data sets whose layout is known: the table is known_sets.yaml beside this file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ...utils.errors import check_name
from ...utils.files import read_yaml
from ..datasets.folder import Description
from ..labels import LabelFormat
from ..path_templates import SLOT
from .layout import Layout, find_layout

_FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class KnownSet:
    """A public data set.

    Attributes:
        name: for `wpl init --format`.
        images: pattern of the images' paths.
        masks: of the masks'.
        values: of the data set's YAML.
    """

    name: str
    images: str
    masks: str
    values: dict[str, Any]


def known_sets() -> list[str]:
    """The names of the data sets that are known."""
    return sorted(read_yaml(_FILE))


def find_known_set(name: str) -> KnownSet:
    """A data set by its name.

    Raises:
        InputError: there is no such one.
    """
    table = read_yaml(_FILE)
    values = table[check_name("--format", name, table)]
    return KnownSet(name, values.pop("images"), values.pop("masks"), values)


def find_known_layout(root: Path, known: KnownSet) -> Layout:
    """The layout of a folder that holds a known data set.

    Raises:
        InputError: it does not.
    """
    values = {"labels": {"format": "masks"}, "colors": (), **known.values}
    values |= {"classes": tuple(values["classes"]), "colors": tuple(map(tuple, values["colors"]))}
    description = Description("known", root.absolute(), SLOT, lists={"all": "all"}, mask=SLOT, path=_FILE, **values)
    layout = find_layout(root, known.images, known.masks)
    return replace(layout, labels=cast(LabelFormat, description.label_format), known=known.name)
