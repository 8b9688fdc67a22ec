"""What is in a data set and what is wrong with it: every list, image and mask is read, counted and compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from ..utils.errors import InputError
from .component_boxes import boxes_of_record
from .datasets import Description
from .datasets.lists import EXTRA
from .image_header import APPLY, QUARTER_TURNS, orientation
from .image_io import label_file, read_image_and_tag, read_record, read_values
from .label_statistics import LabelStatistics, count_labels
from .loader import missing_mask
from .mappers import read_labels
from .pixel_values import RGB
from .validation import find_overlap, find_repeated
from .value_range import Fit, measure_fit, range_notes
from .windows import WHOLE, image_name

Records = list[dict[str, Any]]
_HELD_OUT = ("val", "validation", "test", "dev", "development", "eval")
_MAX_SHOWN = 5


@dataclass
class DatasetReport:
    """What is in a data set.

    Attributes:
        description: the data set.
        lists: the dataset dicts of each readable list.
        pixels: (C + 1,) label counts of each readable mask (see `count_labels`), by image and mask file.
        palettes: by class id, the color in which the first mask with a palette shows it, and that mask.
        boxes: for each mask, (N, 4) xyxy and (N,) semantic class ids.
        turned: the files with an EXIF orientation, and whether turning them keeps their width and height.
        fits: how the values of each image lie in the description's range.
        problems: what must be mended, `file: what is wrong; how to mend it`.
        notes: what may be intended, in the same form.
    """

    description: Description
    lists: dict[str, Records] = field(default_factory=dict)
    pixels: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    palettes: dict[int, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    boxes: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    turned: dict[str, bool] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tables(self) -> str:
        """A table of the lists and one of the classes, as text."""
        lists = tabulate(
            [
                (name, len(records), sum(_files(record) in self.pixels for record in records), self._void(records))
                for name, records in self.lists.items()
            ],
            headers=("list", "images", "masks", "no class %"),
            floatfmt=".3g",
        )
        headers = ("id", "class", "pixels %", "images", "boxes", "short side 10 %", "50 %", "90 %")
        return f"{lists}\n\n{tabulate(self._class_rows(), headers=headers, floatfmt='.4g')}"

    def counts(self, records: Records) -> dict[tuple[str, str], np.ndarray]:
        """The `pixels` of these images, as far as their masks are readable."""
        return {files: self.pixels[files] for files in map(_files, records) if files in self.pixels}

    def unused(self) -> list[str]:
        """The classes without a pixel in any mask, if there are masks at all."""
        pixels = np.sum(list(self.pixels.values()), axis=0) if self.pixels else np.zeros(0)
        return [name for name, count in zip(self.description.classes, pixels, strict=False) if not count]

    def _void(self, records: Records) -> float | None:
        """Percent of the masks' pixels that have no class; None without masks."""
        known = list(self.counts(records).values())
        total = np.sum(known, axis=0)
        return 100 * float(total[-1] / total.sum()) if known else None

    def _class_rows(self) -> list[tuple[Any, ...]]:
        classes = len(self.description.classes)
        counts = np.array(list(self.pixels.values())).reshape(-1, classes + 1)[:, :classes]
        percent = 100 * counts.sum(axis=0) / max(1, counts.sum())
        boxes = np.concatenate([np.zeros((0, 4), np.int64), *(found for found, _ in self.boxes)])
        ids = np.concatenate([np.zeros(0, np.int64), *(classes for _, classes in self.boxes)])
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
        rows = []
        for class_id, name in enumerate(self.description.classes):
            row: tuple[Any, ...] = (class_id, name, percent[class_id], np.count_nonzero(counts[:, class_id]))
            if name in self.description.objects:
                own = sides[ids == class_id]
                row += (len(own), *(np.quantile(own, [0.1, 0.5, 0.9]) if len(own) else ()))
            rows.append(row)
        return rows


def report_dataset(description: Description, min_area: int) -> DatasetReport:
    """Read a whole data set, with a progress bar.

    The names of the lists say what they are for, in upper or lower case:

    - "unlabeled" in the name, or the name `EXTRA`: images may lack masks.
    - X_labeled and X_unlabeled: must be disjoint.
    - "train" in the name: holds all of an unlabeled list, but for images of `EXTRA`, or none of it.
    - val, validation, test, dev, development or eval between underscores: shares no image with lists without them.
    - "labeled" in the name: must show every class that any mask shows.

    Args:
        description: the data set.
        min_area: components with fewer pixels get no box.
    """
    result = DatasetReport(description)
    for name in description.present():
        try:
            result.lists[name] = description.records(name)
        except InputError as error:
            result.problems.append(str(error))
    images = {_files(record): record for records in result.lists.values() for record in records}
    for record in tqdm(images.values(), desc=description.name, unit="image"):
        try:
            _check_image(record, result, min_area)
        except InputError as error:
            result.problems.append(str(error))
    for name, records in result.lists.items():
        result.problems += _list_problems(name, records, result)
    result.notes += [*_unused_note(result), *_orientation_notes(result), *_window_note(images.values())]
    result.notes += range_notes(result.fits, description.layout)
    result.notes += description.label_format.notes() if description.label_format else []
    return result


def _check_image(record: dict[str, Any], result: DatasetReport, min_area: int) -> None:
    description = result.description
    layout = description.layout
    if layout != RGB:
        image, tag = read_values(record["file_name"], description.exif, layout, record.get("window"))
    elif "window" in record:
        image, tag = read_record(record), 1
    else:
        image, tag = read_image_and_tag(record["file_name"], description.exif)
    if layout.value_range:
        result.fits[image_name(record)] = measure_fit(image, layout)
    _note_orientation(record["file_name"], tag, image.shape, result)
    if "sem_seg_file_name" not in record:
        return
    mask = read_labels(record, image.shape[:2], len(description.classes))
    counts = count_labels(mask, len(description.classes))
    result.pixels[_files(record)] = counts
    result.boxes.append(boxes_of_record(record, mask, description.object_ids, min_area))
    if "window" in record:
        return
    with Image.open(record["sem_seg_file_name"]) as header:
        _note_orientation(record["sem_seg_file_name"], orientation(header), mask.shape, result)
        _check_palette(record["sem_seg_file_name"], header, counts[:-1], result)


def _files(record: dict[str, Any]) -> tuple[str, str]:
    return image_name(record), label_file(record) if "sem_seg_file_name" in record else ""


def _note_orientation(file: str, tag: int, shape: tuple[int, ...], result: DatasetReport) -> None:
    if tag > 1:
        result.turned[file] = tag < QUARTER_TURNS or shape[0] == shape[1]


def _orientation_notes(result: DatasetReport) -> list[str]:
    """A note if files have an EXIF orientation: the masks may have been drawn without it, and fit in size alone."""
    if not result.turned:
        return []
    alike = [file for file, same_size in result.turned.items() if same_size]
    unseen = f" ({len(alike)} keep their size when turned: masks that are not turned alike fit too)" if alike else ""
    first = (alike or list(result.turned))[0]
    if result.description.exif == APPLY:
        done = "images and masks are turned; where masks were drawn on the stored pixels, write `exif: ignore`"
    else:
        done = "it is ignored; where masks were drawn on what viewers show, write `exif: apply`"
    return [f"{first}: has an EXIF orientation, as {len(result.turned)} of the files have{unseen}; {done}"]


def _window_note(records: Iterable[dict[str, Any]]) -> list[str]:
    files = [record["file_name"] for record in records if "window" in record]
    if not files:
        return []
    what = f"has more than {WHOLE // 10**6} megapixels, as {len(set(files))} of the images have"
    return [f"{files[0]}: {what}; they count as their {len(files)} windows, which are read one by one"]


def _check_palette(file: str, mask: Image.Image, counts: np.ndarray, result: DatasetReport) -> None:
    """Refuse a palette that shows a class in another class's color, or not as other masks do: its order is wrong."""
    palette = mask.getpalette() if mask.mode == "P" else None
    if palette is None:
        return
    classes, colors = result.description.classes, result.description.colors
    for class_id in np.flatnonzero(counts).tolist():
        color = tuple(palette[3 * class_id : 3 * class_id + 3])
        usual, first = result.palettes.setdefault(class_id, (color, file))
        if colors and color != colors[class_id] and color in colors:
            other = f"in the color of {classes[colors.index(color)]!r}"
        elif color != usual:
            other = f"in another color than that of {first}"
        else:
            continue
        raise InputError(
            f"{file}: its palette shows the id {class_id}, {classes[class_id]!r}, {other}; "
            f"save it with class ids as indices"
        )


def _list_problems(name: str, records: Records, result: DatasetReport) -> list[str]:
    file = result.description.root / result.description.lists[name]
    if not records:
        return [f"{file}: is empty; list some images"]
    repeated = find_repeated(records)
    problems = [f"{file}: lists {path} more than once; remove the repetition" for path in repeated[:_MAX_SHOWN]]
    if not _says(name, "unlabeled") and not _is_extra(name):
        problems += _label_problems(name, records, result)
    for other, theirs in result.lists.items():
        if other != name and _must_differ(name, other):
            problems += find_overlap(records, theirs, f"in both the lists {name!r} and {other!r}")
        elif _says(name, "train") and not _says(name, "labeled") and _says(other, "unlabeled"):
            problems += _partial_overlap(name, records, other, _without_extra(theirs, result))
    return problems


def _must_differ(name: str, other: str) -> bool:
    """Whether two lists must be disjoint; for two held-out lists in one order only, so that it is reported once."""
    if is_held_out(name):
        whole = {name.casefold(), other.casefold()} <= set(_HELD_OUT)
        return not is_held_out(other) or (whole and name < other)
    return other.casefold() == name.casefold().replace("labeled", "unlabeled")


def _says(name: str, word: str) -> bool:
    return word in name.casefold()


def _is_extra(name: str) -> bool:
    return name.casefold() == EXTRA


def _without_extra(records: Records, result: DatasetReport) -> Records:
    extra = {record["file_name"] for name, found in result.lists.items() if _is_extra(name) for record in found}
    return [record for record in records if record["file_name"] not in extra]


def is_held_out(name: str) -> bool:
    """Whether a list's name says that its images must not be trained on."""
    return not set(_HELD_OUT).isdisjoint(name.casefold().split("_"))


def _partial_overlap(name: str, records: Records, other: str, theirs: Records) -> list[str]:
    """A problem if an unlabeled list is neither disjoint from a list of all training images nor a part of it."""
    known = {record["file_name"] for record in records}
    common = [record["file_name"] for record in theirs if record["file_name"] in known]
    if len(common) in (0, len(theirs)):
        return []
    return [
        f"{common[0]}: is in both the lists {name!r} and {other!r}, which holds {len(theirs) - len(common)} images "
        f"that {name!r} does not; make the lists disjoint, or the one a part of the other"
    ]


def _label_problems(name: str, records: Records, result: DatasetReport) -> list[str]:
    file = result.description.root / result.description.lists[name]
    lacking = [r for r in records if "sem_seg_file_name" not in r]
    problems = [missing_mask(record, f"the list {name!r}") for record in lacking[:_MAX_SHOWN]]
    known = result.counts(records)
    drawn = {mask for (_, mask), counts in known.items() if counts[:-1].any()}
    blank = list(dict.fromkeys(mask for _, mask in known if mask not in drawn))
    problems += [
        f"{mask}: labels no pixel; draw it, or take its image out of the list {name!r}" for mask in blank[:_MAX_SHOWN]
    ]
    classes, for_training = result.description.classes, _says(name, "labeled")
    pixels = np.zeros(len(classes) + 1, dtype=np.int64) + sum(known.values())
    ignore = None if result.description.labels else result.description.ignore
    labels = LabelStatistics(str(file), pixels, classes, ignore, for_training)
    if problem := labels.problem():
        return [*problems, problem]
    if for_training:
        # What no mask shows cannot be mended by other images: a value that is not used.
        wanted = [label for label in labels.empty if label not in result.unused()]
        problems += [f"{file}: no pixel is labeled {label!r}; choose images that show it" for label in wanted]
    result.notes += filter(None, [labels.void_note(), "" if for_training else labels.empty_note()])
    return problems


def _unused_note(result: DatasetReport) -> list[str]:
    if not (unused := result.unused()):
        return []
    names = ", ".join(map(repr, unused[:_MAX_SHOWN]))
    more = f" and {len(unused) - _MAX_SHOWN} more" if len(unused) > _MAX_SHOWN else ""
    return [f"{result.description.path}: no mask shows {names}{more}; nothing is learned of what is not labeled"]
