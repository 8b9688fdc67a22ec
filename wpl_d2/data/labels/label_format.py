"""What a format of labels is: it finds the labels of an image, and turns them into class ids."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from fvcore.common.registry import Registry

from ...structures import IGNORE
from ...utils.errors import InputError, check_name, suggest
from ..file_cache import file_state

if TYPE_CHECKING:
    from ..datasets.folder import Description

NO_CLASS = "ignore"
"""What settings write in the place of a class for "no class"."""
LABEL_FORMATS = Registry("LABEL_FORMATS")
"""Subclasses of `LabelFormat`."""


@dataclass(frozen=True)
class ListedImage:
    """An image of a list.

    Attributes:
        id: what the list calls it.
        file: its absolute path.
        mask: the absolute path that `mask` of the YAML, or the list's line, gives to its mask; "" if neither does.
    """

    id: str
    file: str
    mask: str


@dataclass(frozen=True)
class LabelSource:
    """Where the labels of an image are.

    Attributes:
        name: the user's file, for messages, and what in it if it holds the labels of several images; "" if nothing says
            which it is.
        state: what the labels depend on beside the settings, such as `file_state` of their file: when its `repr`
            changes, they are read anew. None: the image has no labels.
    """

    name: str
    state: object

    @classmethod
    def of_file(cls, file: str | Path) -> LabelSource:
        """A file that holds the labels of one image, if it is there."""
        file = str(file)
        return cls(file, file_state(file) if os.path.isfile(file) else None)


@dataclass(frozen=True)
class Labels:
    """The labels of one image.

    Attributes:
        mask: (H, W) uint8 class ids, `IGNORE` where there is none.
        boxes: of the instances, (N, 4) xyxy in pixels, half-open; of formats with `has_instances`.
        box_classes: (N,) their class ids.
    """

    mask: np.ndarray
    boxes: np.ndarray | None = None
    box_classes: np.ndarray | None = None


class LabelFormat(ABC):
    """Labels as some tool writes them.

    What `labels` of the YAML says beside `format` are the keyword arguments of its class and of the classes above.

    Attributes:
        name: in `format` of `labels`.
        version: of what `read` makes; part of the key under which that is kept.
        has_instances: whether the boxes of `Labels` are those of the objects; else they are made of the mask.
        uses_mask: whether `ListedImage.mask` says where the labels are.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    has_instances: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False

    def __init__(self, description: Description) -> None:
        """Check the settings; files are read later.

        Args:
            description: of the data set.

        Raises:
            InputError: they are wrong.
        """
        self.description = description
        self.where = f"{description.path}: 'labels'"

    @abstractmethod
    def find(self, image: ListedImage) -> LabelSource:
        """Where the labels of an image are.

        Raises:
            InputError: no labels can be read at all, such as of a broken file that holds those of all images.
        """

    @abstractmethod
    def read(self, image: ListedImage) -> Labels:
        """The labels of an image for which there are some. It is called in threads.

        Raises:
            InputError: they are wrong; the message begins with the user's file.
        """

    def encode(self, mask: np.ndarray) -> np.ndarray:
        """What a file that holds a mask has in place of class ids, the inverse of `read`; of formats with `uses_mask`.

        Args:
            mask: (H, W) uint8 class ids, `IGNORE` where there is none.

        Raises:
            InputError: nothing stands for what the mask holds.
        """
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What is odd about the labels, after `find` was called for all images of a data set; see `DatasetReport`."""
        return []

    def class_id(self, name: object, what: str) -> int:
        """The id of a class that the settings name, `IGNORE` for `NO_CLASS`.

        Args:
            name: as the YAML has it.
            what: the setting, for the message.

        Raises:
            InputError: there is no such class, or one is called as what stands for none.
        """
        classes = self.description.classes
        if NO_CLASS in classes:
            raise InputError(f"{self.where}: {NO_CLASS!r} stands for no class here; call the class otherwise")
        if name == NO_CLASS:
            return IGNORE
        if name not in classes:
            mend = suggest(str(name), [*classes, NO_CLASS])
            raise InputError(f"{self.where}: {what}: {name!r} is not one of 'classes'; {mend}")
        return classes.index(str(name))


def build_label_format(description: Description) -> LabelFormat | None:
    """The format that a description's `labels` names; None where it has none, and its masks hold class ids.

    Raises:
        InputError: there is no such format, or its settings are wrong.
    """
    if not description.labels:
        return None
    where = f"{description.path}: 'labels'"
    settings = dict(description.labels)
    kinds: dict[str, type[LabelFormat]] = {kind.name: kind for _, kind in LABEL_FORMATS}
    kind = kinds[check_name(f"{where}: 'format'", settings.pop("format"), kinds)]
    known = {p.name: p for ancestor in reversed(kind.__mro__) for p in _keywords(ancestor)}
    _check_keys(where, settings, known, [name for name, p in known.items() if p.default is p.empty])
    if description.mask and not kind.uses_mask:
        raise InputError(f"{description.path}: 'mask' is not read, since 'labels' says where labels are; remove it")
    return kind(description, **settings)


def _keywords(kind: type) -> list[inspect.Parameter]:
    parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def _check_keys(where: str, settings: dict[Any, Any], known: Iterable[str], required: Iterable[str]) -> None:
    for key in settings:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; {suggest(str(key), known, 'remove it')}")
    for key in required:
        if key not in settings:
            raise InputError(f"{where}: the key {key!r} is missing; add it, see docs/guide/label-formats.md")
