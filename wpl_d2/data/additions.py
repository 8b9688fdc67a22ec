"""Labels that were drawn or corrected later: images of the list `unlabeled` become labeled ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import yaml
from PIL import Image

from ..structures import IGNORE
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, read_text, replace_file, unused_path, write_text
from .dataset_report import is_held_out
from .datasets import Description
from .image_io import read_mask, read_size
from .inspection.annotations import Annotations, find_annotations
from .inspection.files import Kind, find_families, kind_of
from .inspection.pairing import pair_masks
from .inspection.values import MIN_COVERED, AmbiguousLabelsError, find_background
from .labels import ListedImage
from .labels.label_format import NO_CLASS
from .labels.set_file_format import SetFileFormat
from .labels.shape_format import ShapeFormat
from .path_templates import ANY_SUFFIX

LABELED, UNLABELED = "labeled", "unlabeled"
_FOLDER = "added"  # below the data set's root, of what has no place of its own
_MAX_SHOWN = 3
_COPIED = ("labelme", "coco", "cvat", "via", "label_studio")
"""The formats whose files are whole: no others beside them have the names of their classes, or pixels."""


@dataclass
class Additions:
    """New labels that were checked; nothing is written yet.

    Attributes:
        description: of the data set.
        lines: of the list `unlabeled`, by the image that each is of.
        files: what to write of labels, by path.
        masks: where a line has to name its mask, by image.
        text: of the YAML where it changes.
        said: what was seen, a line each.
    """

    description: Description
    lines: dict[str, str]
    files: dict[Path, Callable[[Path], object]]
    masks: dict[str, str]
    text: str
    said: list[str]

    def write(self) -> None:
        """Write labels, then the YAML, then the lists: a crash leaves images in both at worst, which `check` finds.

        Raises:
            InputError: a file cannot be written.
        """
        description, root = self.description, self.description.root
        for file, write in self.files.items():
            with clear_write_errors(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, write)
        if self.text:
            write_text(description.path, self.text)
        labeled, unlabeled = (root / description.lists[name] for name in (LABELED, UNLABELED))
        present = read_text(labeled)
        own = [self.masks.get(image, line) for image, line in self.lines.items()]
        known = present.splitlines()
        gap = "\n" if present and not present.endswith("\n") else ""
        write_text(labeled, present + gap + "".join(f"{line}\n" for line in own if line not in known))
        moved = set(self.lines.values())
        rest = [line for line in read_text(unlabeled).splitlines(keepends=True) if line.rstrip("\r\n") not in moved]
        write_text(unlabeled, "".join(rest))


def find_additions(description: Description, folder: Path, pattern: str = "*") -> Additions:
    """Check labels that are to be added to a data set.

    Masks hold class ids, and 255 for none, as `wpl predict` writes them. Labels of the format of the data set are
    copied; others are drawn as masks, if the data set has masks.

    Args:
        description: of the data set.
        folder: with labels.
        pattern: of those to take, below the folder.

    Raises:
        AmbiguousLabelsError: there are labels of several kinds.
        InputError: there are none, or some are not of an unlabeled image, not of its size, or of other classes.
    """
    for name in (LABELED, UNLABELED):
        if name not in description.lists:
            raise InputError(f"{description.path}: has no list {name!r}, between which images move; name them so")
    if not folder.is_dir():
        raise InputError(f"--add: {folder} is no folder; give the one that holds the labels")
    images = {image.file: image for name in description.present() for image in description.listed(name)}
    annotations, masks = _find(folder, pattern)
    if annotations is None:
        labels = _masks_of(description, folder, masks, images)
        return _as_masks(description, labels, [f"{len(labels)} masks of class ids"])
    format_, listed = _read_with(description, folder, annotations, images)
    _check_lists(description, listed, annotations.files[0])
    present = description.labels.get("format", "masks")
    if present == annotations.format and present in _COPIED:
        return _as_files(description, folder, annotations, listed, format_)
    share = float(np.median([(format_.read(image).mask != IGNORE).mean() for image in listed.values()]))
    uncovered = find_background(description.classes) if share < MIN_COVERED else ""
    drawn = _with_labels(description, {**format_.description.labels, "uncovered": uncovered or NO_CLASS})
    said = [
        f"{len(listed)} images with labels of {format_.tool}, drawn as masks",
        f"shapes cover {100 * share:.0f} % of an image in the median: what none covers "
        f"{f'is {uncovered!r}' if uncovered else 'has no class'}",
    ]
    return _as_masks(description, {file: partial(_draw, drawn, image) for file, image in listed.items()}, said)


def _draw(format_: ShapeFormat, image: ListedImage) -> np.ndarray:
    return format_.read(image).mask


def _find(folder: Path, pattern: str) -> tuple[Annotations | None, list[str]]:
    """The one kind of labels in a folder: of a tool, or masks."""
    found, _ = find_annotations(folder, pattern)
    families = [f for f in find_families(folder) if pattern != "*" or kind_of(folder, f) is Kind.MASK]
    masks = [path for family in families for path in family.paths if fnmatch(path, pattern)]
    readings = {("masks", one.pattern): f"what is in {one.files[0]} ({one.format})" for one in found}
    if masks:
        readings["masks", f"{PurePosixPath(masks[0]).parent}/*".removeprefix("./")] = f"masks, such as {masks[0]}"
    if len(readings) > 1:
        raise AmbiguousLabelsError(folder, "holds labels of several kinds", readings)
    if not readings:
        raise InputError(f"--add: {folder} holds no labels that are known; give a folder of masks or of a tool's files")
    return (found[0] if found else None), masks


def _masks_of(
    description: Description, folder: Path, masks: Sequence[str], images: Mapping[str, ListedImage]
) -> dict[str, Callable[[], np.ndarray]]:
    """What reads the mask of each image."""
    pairs = _pair(description, folder, masks, images)
    _check_lists(description, {file: images[file] for file in pairs}, masks[0])
    for file, mask in pairs.items():
        _check_mask(description, folder / mask, read_mask(folder / mask), file)
    return {file: partial(read_mask, folder / mask) for file, mask in pairs.items()}


def _check_mask(description: Description, source: Path, mask: np.ndarray, image: str) -> None:
    size = read_size(image, description.exif)
    if mask.shape != size:
        raise InputError(
            f"{source}: is {mask.shape[1]}x{mask.shape[0]} (width x height), its image {size[1]}x{size[0]}; save it in "
            "the image's size"
        )
    highest = int(np.max(mask, initial=0, where=mask != IGNORE))
    if highest >= len(description.classes):
        raise InputError(
            f"{source}: holds the value {highest}, and the data set has the class ids 0 to "
            f"{len(description.classes) - 1}; correct it, or add the class to {description.path}"
        )


def _pair(
    description: Description, folder: Path, files: Sequence[str], images: Mapping[str, ListedImage]
) -> dict[str, str]:
    """The file of labels of each image that has one, by names that go together."""
    relative = {os.path.relpath(file, description.root): file for file in images}
    pairs, passed_over, unmatched = pair_masks(description.root, list(relative), files)
    if unmatched:
        raise _unknown(description, folder / unmatched[0], len(unmatched))
    if passed_over:
        raise InputError(f"{folder / passed_over[0]}: is a second one of its image; keep one of them")
    return {relative[image]: file for image, file in pairs.items()}


def _unknown(description: Description, source: object, count: int) -> InputError:
    more = f" ({count} such labels)" if count > 1 else ""
    return InputError(
        f"{source}: is of no image in the lists of {description.path}{more}; name it as its image, or take it out of "
        "the folder"
    )


def _check_lists(description: Description, added: Mapping[str, ListedImage], source: str) -> None:
    """Refuse images that are not in the list of unlabeled ones, or are in one that must not be trained on."""
    where = {name: {image.file for image in description.listed(name)} for name in description.present()}
    for file in added:
        held_out = next((name for name, files in where.items() if is_held_out(name) and file in files), "")
        if held_out:
            raise InputError(
                f"{file}: is in the list {held_out!r}, which is not trained on, and {source} labels it; take its "
                "labels out of the folder"
            )
        if file not in where[UNLABELED]:
            what = "labeled already" if file in where[LABELED] else f"not in the list {UNLABELED!r}"
            raise InputError(f"{file}: is {what}, and {source} labels it; take its labels out of the folder")


def _with_labels(description: Description, labels: Mapping[str, Any]) -> ShapeFormat:
    """What reads other labels of the same images."""
    return cast(ShapeFormat, replace(description, mask="", labels=labels).label_format)


def _read_with(
    description: Description, folder: Path, annotations: Annotations, images: Mapping[str, ListedImage]
) -> tuple[ShapeFormat, dict[str, ListedImage]]:
    """What reads the labels of a tool, and the images that they are of.

    Raises:
        InputError: some are of no image that is known, or of other classes.
    """
    files: Any = [str((folder / file).absolute()) for file in annotations.files]
    names = {key: str((folder / file).absolute()) for key, file in annotations.settings.items()}
    settings = {"format": annotations.format, **names, "uncovered": NO_CLASS}
    same = description.labels.get("format") == annotations.format
    kept = description.labels if same else {"categories", "other"} & description.labels.keys()
    settings = {key: description.labels[key] for key in kept} | settings
    if annotations.for_each_image:
        suffix = PurePosixPath(annotations.files[0]).suffix
        format_ = _with_labels(description, {**settings, "files": f"{folder.absolute()}/{{id}}{suffix}"})
        pairs = _pair(description, folder, annotations.files, images)
        listed = {f: ListedImage(label.removesuffix(suffix), f, "") for f, label in pairs.items()}
    else:
        format_ = _with_labels(description, {**settings, "files": files})
        unknown = cast(SetFileFormat, format_).unmatched(images.values())
        if unknown:
            raise _unknown(description, unknown[0], len(unknown))
        listed = {f: image for f, image in images.items() if format_.find(image).state is not None}
    for image in listed.values():
        format_.read(image)  # says what is wrong
    return format_, listed


def _lines(description: Description, added: Sequence[str]) -> dict[str, str]:
    """The lines of the unlabeled list, by image."""
    lines = [line for line in read_text(description.root / description.lists[UNLABELED]).splitlines() if line.strip()]
    listed, wanted = description.listed(UNLABELED), set(added)
    return {image.file: line for image, line in zip(listed, lines, strict=True) if image.file in wanted}


def _as_masks(description: Description, labels: Mapping[str, Callable[[], np.ndarray]], said: list[str]) -> Additions:
    """Labels as masks of the data set."""
    format_, root = description.label_format, description.root
    if format_ is not None and not format_.uses_mask:
        raise InputError(
            f"{description.path}: its labels are of the format {format_.name}; add labels of that format (`wpl predict "
            "--format`, or the tool's export), or describe the data set with masks"
        )
    lines = _lines(description, list(labels))
    files: dict[Path, Callable[[Path], object]] = {}
    masks = {}
    for image in description.listed(UNLABELED):
        if image.file not in labels:
            continue
        relative = PurePosixPath(os.path.relpath(image.file, root))
        target = Path(image.mask.removesuffix(ANY_SUFFIX) + ".png" if image.mask.endswith(ANY_SUFFIX) else image.mask)
        if not image.mask:
            target = root / _FOLDER / relative.with_suffix(".png")
            masks[image.file] = f"{relative}\t{target.relative_to(root).as_posix()}"
        files[target] = partial(_write_mask, description, labels[image.file], target.suffix)
        values = _encode(description, labels[image.file]())
        if target.exists() and not _holds(target, values):
            raise InputError(f"{target}: is there already, and is another mask; remove it, or the one that is added")
    return Additions(description, lines, files, masks, "", said)


def _encode(description: Description, mask: np.ndarray) -> np.ndarray:
    """What the files of the data set's masks hold in place of class ids."""
    if description.label_format is not None:
        return description.label_format.encode(mask)
    dtype = np.uint8 if description.ignore <= IGNORE else np.uint16
    return np.where(mask == IGNORE, description.ignore, mask).astype(dtype)


def _holds(file: Path, values: np.ndarray) -> bool:
    with Image.open(file) as image:
        return np.array_equal(np.asarray(image), values)


def _write_mask(description: Description, read: Callable[[], np.ndarray], suffix: str, file: Path) -> None:
    Image.fromarray(_encode(description, read())).save(file, format=Image.registered_extensions()[suffix.lower()])


def _as_files(
    description: Description,
    folder: Path,
    annotations: Annotations,
    listed: Mapping[str, ListedImage],
    format_: ShapeFormat,
) -> Additions:
    """Files of the data set's own format, as they are."""
    lines, text, said = _lines(description, list(listed)), "", [f"{len(listed)} images with labels of {format_.tool}"]
    if annotations.for_each_image:
        own = cast(Any, description.label_format)
        files = {own.file(image): cast(Any, format_).file(listed[file]) for file, image in _images(description, listed)}
        taken = [target for target in files if target.exists() and target.read_bytes() != files[target].read_bytes()]
        if taken:
            raise InputError(f"{taken[0]}: is there already, and is another one; remove it, or the one that is added")
    else:
        place, present = description.root / _FOLDER, description.labels["files"]
        files = {unused_path(place / Path(name).name): folder / name for name in annotations.files}
        names = [target.relative_to(description.root).as_posix() for target in files]
        text = _with_files(description, [*(present if isinstance(present, list) else [present]), *names])
        said.append(f"copied to {', '.join(names[:_MAX_SHOWN])}, which 'files' of 'labels' names from now on")
        _check_once(description, format_, listed)
    writes = {target: partial(shutil.copyfile, source) for target, source in files.items()}
    return Additions(description, lines, cast(dict[Path, Callable[[Path], object]], writes), {}, text, said)


def _images(description: Description, added: Mapping[str, ListedImage]) -> list[tuple[str, ListedImage]]:
    return [(image.file, image) for image in description.listed(UNLABELED) if image.file in added]


def _check_once(description: Description, format_: ShapeFormat, listed: Mapping[str, ListedImage]) -> None:
    """Refuse images that the data set's own files list too: two files must not label one image."""
    for file, image in _images(description, listed):
        own = cast(ShapeFormat, description.label_format).find(image)
        if own.state is not None:
            raise InputError(
                f"{own.name}: lists {file} too, and {format_.find(listed[file]).name} labels it; take it out of one"
            )


def _with_files(description: Description, files: list[str]) -> str:
    """The text of the YAML with other files of labels."""
    text = read_text(description.path)
    node: yaml.Node = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in ("labels", "files"):
        node = next(value for name, value in cast(yaml.MappingNode, node).value if name.value == key)
    written = yaml.safe_dump(files, default_flow_style=True, width=10**6).strip()
    end = node.end_mark.index
    block = text[node.start_mark.index : end]
    return text[: node.start_mark.index] + written + block[len(block.rstrip()) :] + text[end:]
