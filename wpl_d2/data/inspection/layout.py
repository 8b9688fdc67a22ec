"""Which mask belongs to which image, and how their paths are written in a data set's YAML."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ...utils.errors import InputError
from ..image_io import read_image
from ..path_templates import ANY_SUFFIX, IMAGE_SUFFIXES, SLOT, extract, fill
from .files import Family, Kind, find_families, find_label_files, kind_of, tail_of

TRAIN, VAL, TEST = "train", "val", "test"
_SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
# Of several masks of one image, words in their paths that are wanted more or less than none.
_RANKS = {"trainid": 2, "semantic": 1, "class": 1, "instance": -1, "object": -1, "color": -2, "depth": -3}


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
    """

    root: Path
    masks: Mapping[str, str]
    unlabeled: tuple[str, ...]
    templates: tuple[str, str]
    unmatched: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    colored: bool = False


def find_layout(root: Path, images: str = "*", masks: str = "*") -> Layout:
    """Find the images and masks of a folder.

    Args:
        root: the folder.
        images: pattern of the paths of images below it, such as "photos/*".
        masks: the same for masks.

    Raises:
        InputError: there are no images, no masks, or masks that cannot be of classes; or two images have one mask.
    """
    families = find_families(root)
    kinds = {family: kind_of(root, family) for family in families}
    mask_families = _choose_masks(root, kinds, masks)
    # Where nothing looks like a photo, the even images that are no masks are what is to be segmented.
    rest = {f: kind for f, kind in kinds.items() if f not in mask_families}
    order = (Kind.PHOTO, Kind.LOSSY_MASK, Kind.COLOR_MASK, Kind.DEEP)
    photo_kind = next((kind for kind in order if kind in rest.values()), Kind.PHOTO)
    photos = [f for f, kind in rest.items() if kind is photo_kind]
    paths = [path for family in photos for path in family.paths if fnmatch(path, images)]
    if not paths:
        raise InputError(
            f"{root}: holds {sum(len(f.files) for f in families)} image files and no photos"
            f"{' that fit ' + images if images != '*' else ''}; put the images there, beside their masks"
        )
    if photo_kind is Kind.DEEP:
        read_image(root / paths[0])  # says why it cannot be
    found = [path for family in mask_families for path in family.paths if fnmatch(path, masks)]
    pairs, passed_over, unmatched = _pair(root, paths, found)
    if not pairs:
        raise InputError(
            f"{root / found[0]}: looks like a mask, and no image has its name, as none of {len(found)} masks has; name "
            "masks as their images, such as a.jpg and a.png or a_mask.png"
        )
    unlabeled = tuple(path for path in paths if path not in pairs)
    templates = _templates(root, pairs, unlabeled)
    colored = kinds[mask_families[0]] is Kind.COLOR_MASK
    return Layout(root, pairs, unlabeled, templates, unmatched, passed_over, colored)


def split_of(path: str) -> str:
    """The split that a path's folders name, one of `TRAIN`, `VAL` and `TEST`, or ""."""
    return next((_SPLITS[p.lower()] for p in PurePosixPath(path).parts[:-1] if p.lower() in _SPLITS), "")


def core_of(path: str) -> str:
    """The name of a file without its suffix and what says that it is an image or a mask, such as "_mask"."""
    name = PurePosixPath(path)
    return name.stem.removesuffix(tail_of(name.name))


def _choose_masks(root: Path, kinds: Mapping[Family, Kind], pattern: str) -> list[Family]:
    """The families that are masks of values, else of colors; or those that fit a pattern.

    Raises:
        InputError: there are none; the message says what there is instead.
    """
    if not kinds:
        raise InputError(f"{root}: holds no images; give the folder that holds images and masks")
    if pattern != "*":
        found = [f for f in kinds if any(fnmatch(path, pattern) for path in f.paths)]
        if found:
            return found
        raise InputError(f"--masks: no image of {root} fits {pattern}; give a pattern such as 'masks/*'")
    for kind in (Kind.MASK, Kind.COLOR_MASK):
        found = [f for f, other in kinds.items() if other is kind]
        if found and (kind is Kind.MASK or Kind.PHOTO in kinds.values()):
            return found
    for kind, what, mend in (
        (Kind.LOSSY_MASK, "is compressed with loss, which makes ids that nobody drew", "save the masks as PNG"),
        (Kind.DEEP, "has 16 bits and no even areas, as depth has and no mask", "add masks of class ids as 8-bit PNG"),
    ):
        family = next((f for f, other in kinds.items() if other is kind), None)
        if family and Kind.PHOTO in kinds.values():
            raise InputError(f"{root / family.paths[0]}: {what}, and there are no masks of class ids; {mend}")
    others = find_label_files(root)
    if others:
        raise InputError(
            f"{root / others[0]}: may hold labels, but only masks are read; export masks from the tool that drew them, "
            "one 8-bit PNG of class ids for each image"
        )
    count = sum(len(f.files) for f in kinds)
    raise InputError(
        f"{root}: holds {count} photos and no masks; add masks of some of them, 8-bit PNG whose values are class ids, "
        "of the same names in another folder"
    )


def _pair(
    root: Path, images: Sequence[str], masks: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """The mask of each image that has one; one of each kind of mask that was passed over; masks without an image."""
    by_stem, by_core = _index(images, lambda p: PurePosixPath(p).stem), _index(images, core_of)
    owned: dict[str, list[str]] = defaultdict(list)
    unmatched = []
    for mask in masks:
        stem = PurePosixPath(mask).stem
        near = _nearest(mask, by_stem.get(stem) or by_stem.get(core_of(mask)) or by_core.get(core_of(mask), []))
        if len(near) > 1:
            raise InputError(
                f"{root / mask}: is the mask of {near[0]} and of {near[1]} by its name; name them apart, or say which "
                "files are images: --images 'photos/*'"
            )
        for image in near:
            owned[image].append(mask)
        if not near:
            unmatched.append(mask)
    pairs: dict[str, str] = {}
    passed_over: dict[tuple[str, str], str] = {}
    for image in images:
        if not owned[image]:
            continue
        best, *others = sorted(owned[image], key=_rank, reverse=True)
        if others and _rank(others[0]) == _rank(best):
            raise InputError(
                f"{root / image}: has two masks, {best} and {others[0]}; say which to take: --masks 'masks/*'"
            )
        pairs[image] = best
        passed_over |= {(str(PurePosixPath(mask).parent), tail_of(mask)): mask for mask in others}
    return pairs, tuple(passed_over.values()), tuple(unmatched)


def _index(paths: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[key(path)].append(path)
    return found


def _nearest(mask: str, images: Sequence[str]) -> list[str]:
    """Of images with a mask's name those whose folders have most in common with the mask's."""
    if len(images) < 2:
        return list(images)
    folders = Counter(PurePosixPath(mask).parts[:-1])
    common = [(folders & Counter(PurePosixPath(image).parts[:-1])).total() for image in images]
    return [image for image, shared in zip(images, common, strict=True) if shared == max(common)]


def _rank(mask: str) -> int:
    """How much the words in a mask's path speak for its being of classes, compared with others of the same image."""
    name = f"{PurePosixPath(mask).parent.name}/{tail_of(mask)}".lower()
    return sum(rank for word, rank in _RANKS.items() if word in name)


def _templates(root: Path, pairs: Mapping[str, str], unlabeled: Sequence[str]) -> tuple[str, str]:
    """Templates of image and mask that fit all files, else one that fits every image and ""."""
    image, mask = next(iter(pairs.items()))
    for of_image in _candidates(image, (*pairs, *unlabeled)):
        ids = {path: extract(of_image, path) or "" for path in (*pairs, *unlabeled)}
        if not all(ids.values()) or any(PurePosixPath(i).suffix.lower() in IMAGE_SUFFIXES for i in ids.values()):
            continue
        for of_mask in _candidates(mask, pairs.values()):
            leads_elsewhere = any((root / fill(of_mask, ids[i])).is_file() for i in unlabeled)
            if not leads_elsewhere and all(_leads_to(of_mask, ids[i], m) for i, m in pairs.items()):
                return of_image, of_mask
    return f"{SLOT}{ANY_SUFFIX}", ""


def _candidates(path: str, alike: Iterable[str]) -> list[str]:
    """Templates that a path may be made of, those with the longest ids first; `alike`: all paths that are to fit."""
    suffixes = {PurePosixPath(other).suffix for other in alike}
    suffix = suffixes.pop() if len(suffixes) == 1 else ANY_SUFFIX
    folders = PurePosixPath(path).parts[:-1]
    tails = dict.fromkeys(("", tail_of(path)))
    return ["/".join((*folders[:depth], f"{SLOT}{t}{suffix}")) for depth in range(len(folders) + 1) for t in tails]


def _leads_to(template: str, image_id: str, mask: str) -> bool:
    return fill(template, image_id) in (mask, str(PurePosixPath(mask).with_suffix(ANY_SUFFIX)))
