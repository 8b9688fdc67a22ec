"""Which mask belongs to which image, and how their paths are written in a data set's YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, cast

from ...utils.errors import InputError
from ..datasets.folder import Description
from ..labels import LabelFormat, ListedImage
from ..labels.label_format import NO_CLASS
from ..labels.set_file_format import SetFileFormat
from ..labels.shape_format import ShapeFormat
from ..path_templates import SLOT, extract
from .annotations import Annotations, find_annotations
from .class_masks import find_class_masks
from .files import Family, Kind, find_families, find_label_files, kind_of
from .pairing import find_image_template, find_templates, pair_masks
from .values import AmbiguousLabelsError

_IGNORED = "__ignore__"  # what LabelMe's own converters leave out
TRAIN, VAL, TEST = "train", "val", "test"
_SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


@dataclass(frozen=True)
class Layout:
    """The images of a folder and their masks.

    Attributes:
        root: the folder.
        masks: the mask of each labeled image, paths below the root, in order.
        unlabeled: images without a mask.
        templates: of image and mask, as in a data set's YAML; the second is "" if no template fits all masks.
        unmatched: masks without an image.
        alternatives: masks that were passed over for others of the same images, one of each kind.
        colored: whether the masks show classes as colors.
        labels: what reads the labels, if that is known already. If they are no masks, `masks` says where they are.
        known: the name of the data set, if it is a public one that the user named.
    """

    root: Path
    masks: Mapping[str, str]
    unlabeled: tuple[str, ...]
    templates: tuple[str, str]
    unmatched: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    colored: bool = False
    labels: LabelFormat | None = None
    known: str = ""

    @property
    def has_masks(self) -> bool:
        """Whether each labeled image has a mask of its own."""
        return self.labels is None or self.labels.uses_mask

    def listed(self, image: str) -> ListedImage:
        """An image as a list has it."""
        mask = str(self.root.absolute() / self.masks[image]) if self.has_masks else ""
        return ListedImage(extract(self.templates[0], image) or "", str(self.root.absolute() / image), mask)


def find_layout(root: Path, images: str = "*", masks: str = "*") -> Layout:
    """Find the images and masks of a folder.

    Args:
        root: the folder.
        images: pattern of the paths of images below it, such as "photos/*".
        masks: the same for masks, and for files of annotation tools.

    Raises:
        AmbiguousLabelsError: there are labels of several kinds.
        InputError: there are no images, no labels, or labels that cannot be read; or two images have one mask.
    """
    annotations, boxes = find_annotations(root, masks)
    parts = [one.settings.get("masks", "") for one in annotations]  # images of COCO's panoptic labels
    kinds = {f: kind_of(root, f) for f in find_families(root) if f.folder not in filter(None, parts)}
    mask_families = _find_masks(kinds, masks)
    if annotations and Kind.PHOTO not in kinds.values():
        mask_families = []  # even pictures that a tool was shown
    if not annotations and not mask_families:
        _refuse(root, kinds, masks, boxes)
    paths = _find_images(root, kinds, mask_families, images)
    classes = find_class_masks(root, paths, mask_families)
    if classes and not annotations:
        settings = {"format": "class_masks", "files": classes.files}
        return _labeled_layout(root, paths, classes.image, _label_format(root, classes.classes, settings))
    found = [path for family in mask_families for path in family.paths if fnmatch(path, masks)]
    pairs, passed_over, unmatched = pair_masks(root, paths, found)
    if annotations:
        return _find_labels(root, paths, _choose(root, annotations, pairs))
    if not pairs:
        raise InputError(
            f"{root / found[0]}: looks like a mask, and no image has its name, as none of {len(found)} masks has; name "
            "masks as their images, such as a.jpg and a.png or a_mask.png"
        )
    unlabeled = tuple(path for path in paths if path not in pairs)
    templates = find_templates(root, pairs, unlabeled)
    colored = kinds[mask_families[0]] is Kind.COLOR_MASK
    return Layout(root, pairs, unlabeled, templates, unmatched, passed_over, colored)


def split_of(path: str) -> str:
    """The split that a path's folders name, one of `TRAIN`, `VAL` and `TEST`, or ""."""
    return next((_SPLITS[p.lower()] for p in PurePosixPath(path).parts[:-1] if p.lower() in _SPLITS), "")


def _find_images(root: Path, kinds: Mapping[Family, Kind], masks: Sequence[Family], pattern: str) -> list[str]:
    """The paths of the images.

    Raises:
        InputError: there are none.
    """
    # Where nothing looks like a photo, the even images that are no masks are what is to be segmented.
    rest = {f: kind for f, kind in kinds.items() if f not in masks}
    order = (Kind.PHOTO, Kind.LOSSY_MASK, Kind.COLOR_MASK, Kind.DEEP, Kind.MASK)
    photo_kind = next((kind for kind in order if kind in rest.values()), Kind.PHOTO)
    photos = [f for f, kind in rest.items() if kind is photo_kind]
    paths = [path for family in photos for path in family.paths if fnmatch(path, pattern)]
    if not paths:
        raise InputError(
            f"{root}: holds {sum(len(f.files) for f in kinds)} image files and no photos"
            f"{' that fit ' + pattern if pattern != '*' else ''}; put the images there, beside their labels"
        )
    return paths


def _find_masks(kinds: Mapping[Family, Kind], pattern: str) -> list[Family]:
    """The families that are masks of values, else of colors; or those that fit a pattern."""
    if pattern != "*":
        return [f for f in kinds if any(fnmatch(path, pattern) for path in f.paths)]
    for kind in (Kind.MASK, Kind.COLOR_MASK):
        found = [f for f, other in kinds.items() if other is kind]
        if found and (kind is Kind.MASK or Kind.PHOTO in kinds.values()):
            return found
    return []


def _refuse(root: Path, kinds: Mapping[Family, Kind], pattern: str, boxes: Sequence[str]) -> NoReturn:
    """Say what there is instead of labels."""
    if not kinds:
        raise InputError(f"{root}: holds no images; give the folder that holds images and labels")
    if pattern != "*":
        raise InputError(f"--masks: no labels in {root} fit {pattern}; give a pattern such as 'masks/*'")
    for kind, what, mend in (
        (Kind.LOSSY_MASK, "is compressed with loss, which makes ids that nobody drew", "save the masks as PNG"),
        (Kind.DEEP, "has 16 bits and no even areas, as depth has and no mask", "add masks of class ids as 8-bit PNG"),
    ):
        family = next((f for f, other in kinds.items() if other is kind), None)
        if family and Kind.PHOTO in kinds.values():
            raise InputError(f"{root / family.paths[0]}: {what}, and there are no masks of class ids; {mend}")
    if boxes:
        raise InputError(
            f"{root / boxes[0]}: has boxes without outlines, and segmentation needs outlines; draw them, or add masks"
        )
    others = find_label_files(root)
    if others:
        raise InputError(
            f"{root / others[0]}: may hold labels, and is of no format that is known; export one of those in "
            "docs/guide/label-formats.md, or masks, 8-bit PNG of class ids"
        )
    count = sum(len(f.files) for f in kinds)
    raise InputError(
        f"{root}: holds {count} photos and no labels; add masks of some of them, 8-bit PNG whose values are class ids, "
        "of the same names in another folder, or what a tool of annotators exports"
    )


def _choose(root: Path, annotations: Sequence[Annotations], pairs: Mapping[str, str]) -> Annotations:
    """The one kind of labels that there is.

    Raises:
        AmbiguousLabelsError: there are several, masks among them if images have some.
    """
    readings = {("masks", one.pattern): f"what is in {one.files[0]} ({one.format})" for one in annotations}
    if pairs:
        mask = next(iter(pairs.values()))
        readings["masks", f"{PurePosixPath(mask).parent}/*"] = f"masks, such as {mask}"
    if len(readings) > 1:
        raise AmbiguousLabelsError(root, "holds labels of several kinds", readings)
    return annotations[0]


def _find_labels(root: Path, images: Sequence[str], annotations: Annotations) -> Layout:
    """The layout of images whose labels a tool wrote.

    Raises:
        InputError: they cannot be read, or are of none of the images.
    """
    template, files = find_image_template(images), list(annotations.files)
    unmatched: tuple[str, ...] = ()
    if annotations.for_each_image:
        pairs, _, unmatched = pair_masks(root, images, files)
        if pairs:
            template, pattern = find_templates(root, pairs, [image for image in images if image not in pairs])
            files = [pattern] if pattern else []  # where the tool puts them
    settings = {"format": annotations.format, **annotations.settings}
    if files:
        settings["files"] = files[0] if len(files) == 1 else files
    named = cast(ShapeFormat, _label_format(root, ["?"], settings))
    layout = _labeled_layout(root, images, template, named, unmatched)
    if isinstance(named, SetFileFormat):
        layout = replace(layout, unmatched=tuple(named.unmatched(map(layout.listed, images))))
    names = named.category_names(map(layout.listed, layout.masks))
    if _IGNORED in names:
        settings["categories"] = {_IGNORED: NO_CLASS}
        names.remove(_IGNORED)
    if not names:
        raise InputError(f"{root / annotations.files[0]}: labels nothing; label some images in the tool")
    return replace(layout, labels=_label_format(root, names, settings))


def _labeled_layout(
    root: Path, images: Sequence[str], template: str, labels: LabelFormat, unmatched: tuple[str, ...] = ()
) -> Layout:
    """The layout of images, of which those are labeled that a format finds labels of.

    Raises:
        InputError: it finds none.
    """
    layout = Layout(root, {}, (), (template, ""), unmatched, labels=labels)
    sources = {image: labels.find(layout.listed(image)) for image in images}
    place = f"{root.absolute()}/"
    labeled = {i: source.name.removeprefix(place) for i, source in sources.items() if source.state is not None}
    if not labeled:
        raise InputError(
            f"{next(iter(sources.values())).name}: has labels of none of the images, such as {images[0]}; put the "
            "images there that were labeled, under the same names"
        )
    rest = tuple(image for image in images if image not in labeled)
    return replace(layout, masks=labeled, unlabeled=rest)


def _label_format(root: Path, classes: Sequence[str], settings: Mapping[str, Any]) -> LabelFormat:
    """What reads labels, where other categories and what nothing covers have no class."""
    other = {} if settings["format"] == "class_masks" else {"other": NO_CLASS}
    labels = {"uncovered": NO_CLASS, **other, **settings}
    description = Description("labels", root.absolute(), SLOT, tuple(classes), {"all": "all"}, labels=labels, path=root)
    return cast(LabelFormat, description.label_format)
