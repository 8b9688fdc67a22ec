"""Which mask belongs to which image, by names that go together, and how their paths are written in a YAML."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...utils.errors import InputError
from ..path_templates import ANY_SUFFIX, IMAGE_SUFFIXES, SLOT, extract, fill
from .files import tail_of

# Of several masks of one image, words in their paths that are wanted more or less than none.
_RANKS = {"trainid": 2, "semantic": 1, "class": 1, "instance": -1, "object": -1, "color": -2, "depth": -3}


def core_of(path: str) -> str:
    """The name of a file without its suffix and what says that it is an image or a mask, such as "_mask"."""
    name = PurePosixPath(path)
    return name.stem.removesuffix(tail_of(name.name))


def pair_masks(
    root: Path, images: Sequence[str], masks: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Find the mask of each image by names that go together.

    Args:
        root: of the paths.
        images: to find the masks of.
        masks: or other files of labels.

    Returns:
        the mask of each image that has one; one of each kind of mask that was passed over; masks without an image.

    Raises:
        InputError: two images have one mask, or the other way round.
    """
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


def find_templates(root: Path, pairs: Mapping[str, str], unlabeled: Sequence[str]) -> tuple[str, str]:
    """Templates of image and mask that fit all files, else one that fits every image and "".

    Args:
        root: of the paths.
        pairs: the mask, or another file of labels, of each labeled image.
        unlabeled: the other images.
    """
    mask = next(iter(pairs.values()))
    for of_image, ids in _image_templates((*pairs, *unlabeled)):
        for of_mask in _candidates(mask, pairs.values()):
            leads_elsewhere = any((root / fill(of_mask, ids[i])).is_file() for i in unlabeled)
            if not leads_elsewhere and all(_leads_to(of_mask, ids[i], m) for i, m in pairs.items()):
                return of_image, of_mask
    return f"{SLOT}{ANY_SUFFIX}", ""


def find_image_template(images: Sequence[str]) -> str:
    """A template that fits all images."""
    return next((template for template, _ in _image_templates(images)), f"{SLOT}{ANY_SUFFIX}")


def _image_templates(images: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Templates that fit all images, and the ids that they leave open."""
    for template in _candidates(images[0], images):
        ids = {path: extract(template, path) or "" for path in images}
        if all(ids.values()) and not any(PurePosixPath(i).suffix.lower() in IMAGE_SUFFIXES for i in ids.values()):
            yield template, ids


def _candidates(path: str, alike: Iterable[str]) -> list[str]:
    """Templates that a path may be made of, those with the longest ids first; `alike`: all paths that are to fit."""
    suffixes = {PurePosixPath(other).suffix for other in alike}
    suffix = suffixes.pop() if len(suffixes) == 1 else ANY_SUFFIX
    folders = PurePosixPath(path).parts[:-1]
    tails = dict.fromkeys(("", tail_of(path)))
    return ["/".join((*folders[:depth], f"{SLOT}{t}{suffix}")) for depth in range(len(folders) + 1) for t in tails]


def _leads_to(template: str, image_id: str, mask: str) -> bool:
    return fill(template, image_id) in (mask, str(PurePosixPath(mask).with_suffix(ANY_SUFFIX)))
