"""The classes' names, and the section of a data set's YAML that says how labels are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...utils.errors import InputError
from ..labels.label_format import NO_CLASS, LabelFormat
from ..labels.shape_format import ShapeFormat
from .class_names import NamedClasses, read_class_names
from .layout import Layout
from .masks import MaskStatistics
from .values import BACKGROUND, MIN_COVERED, find_background

_MAX_SHOWN = 3
_MAX_NAMED = 12


def name_classes(layout: Layout, statistics: MaskStatistics) -> NamedClasses:
    """The names of the classes, from a file if there is one.

    Raises:
        InputError: it does not say which of them has which value or color.
    """
    values = statistics.meaning.values
    if layout.labels:
        classes = layout.labels.description.classes
        if layout.known:
            return NamedClasses(classes, f"those of {layout.known}", layout.labels.description.colors)
        own = (BACKGROUND, *classes) if len(values) > len(classes) else classes
        return NamedClasses(own, f"named by {_files_of(layout.labels)}")
    named = read_class_names(layout.root, len(values))
    if named is None or statistics.meaning.are_ids:
        return named or _made_up_names(statistics)
    if layout.colored and named.colors:
        return named
    if len(named.names) != len(values):
        raise InputError(
            f"{layout.root}: {named.source}, has {len(named.names)} names, and the masks have {len(values)} "
            f"{'colors' if layout.colored else 'values'}; write a name for each, "
            f"{'with its r g b behind it' if layout.colored else 'in the order of the values'}"
        )
    return named


def describe_labels(
    layout: Layout, statistics: MaskStatistics, names: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """How labels are stored, as `labels` of a data set's YAML, empty for masks of class ids; and what was seen.

    Args:
        layout: of the folder.
        statistics: of the labels.
        names: of the classes.
    """
    values = statistics.meaning.values
    if layout.labels and layout.known:
        labels = dict(layout.labels.description.labels)
        return ({} if labels == {"format": "masks"} else labels), [f"masks as {layout.known} has them"]
    if layout.labels:
        return _shape_format(layout.labels, statistics, names)
    if layout.colored:
        return {"format": "color_masks"}, [f"masks of {len(values)} colors"]
    gray = "gray that is stored as colors" if statistics.gray_colors else "gray"
    if not statistics.meaning.are_ids:
        table = dict(zip(values, names, strict=True))
        return {"format": "masks", "values": table}, [f"masks of the values {few(list(map(str, values)))}, {gray}"]
    return ({"format": "masks"}, [f"masks of class ids, {gray}"]) if statistics.gray_colors else ({}, [])


def _shape_format(
    labels: LabelFormat, statistics: MaskStatistics, names: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The same for labels that a tool wrote."""
    share = statistics.covered
    uncovered = find_background(names) if share < MIN_COVERED else NO_CLASS
    settings = {key: value for key, value in labels.description.labels.items() if key != "other"}
    if uncovered == NO_CLASS:
        why = "they are to cover everything, so that what none covers has no class"
    else:
        why = f"what no shape covers is {uncovered!r}"
    what = f"labels of {labels.tool}" if isinstance(labels, ShapeFormat) else "a mask for each class"
    seen = f"{what}, {_files_of(labels)}"
    said = f"shapes cover {100 * share:.0f} % of an image in the median: {why} (`uncovered`)"
    return {**settings, "uncovered": uncovered}, [seen, said]


def _files_of(labels: LabelFormat) -> str:
    files = labels.description.labels.get("files", "where the tool puts them")
    return files if isinstance(files, str) else ", ".join(files[:_MAX_SHOWN]) + ", ..." * (len(files) > _MAX_SHOWN)


def _made_up_names(statistics: MaskStatistics) -> NamedClasses:
    names = [f"class_{class_id}" for class_id in range(len(statistics.meaning.values))]
    if statistics.has_background:
        names[0] = "background"
    return NamedClasses(tuple(names), "with made-up names, for want of a classes.txt")


def few(names: Sequence[str]) -> str:
    """Some of many names, for a message."""
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
