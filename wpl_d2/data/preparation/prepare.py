"""Preparing unpacked archives as a data set that its description can read; can be repeated at any stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from tabulate import tabulate

from ...utils.errors import InputError
from ...utils.files import is_system_file
from ..datasets.folder import Description, load_description
from ..datasets.lists import parse_line, read_list
from .benchmark import UNMASKED, Benchmark, Sources
from .files import MaskJob, write_masks, write_photos
from .splits import keys_digest, published_lists, read_list_keys, write_list

_MAX_SHOWN = 3


@dataclass
class Prepared:
    """Numbers of masks by list (made, already there), and problems as `file: what is wrong; how to mend it`."""

    masks: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def prepare_images(benchmark: Benchmark, description: Description, workers: int) -> Prepared:
    """Write missing masks, and the lists "train", "val" and `UNMASKED` of the existing images.

    Images and lists that the archives do not have are written too.

    Args:
        benchmark: the data set.
        description: of the same data set, with the folder of the archives as root.
        workers: number of processes.
    """
    result = Prepared()
    try:
        sources = benchmark.find_sources(description.root)
    except InputError as error:
        return Prepared(problems=[*benchmark.missing_archives(description.root), str(error)])
    for name, keys in benchmark.own_lists.items():
        write_list(benchmark, description.root, name, keys)
    result.problems += _drop_others(benchmark, sources)
    few = _fewer_than_published(benchmark, description.root, sources)
    result.problems += (benchmark.missing_archives(description.root) if few else []) + few
    jobs = {
        name: _mask_jobs(benchmark, description, name, found) for name, found in sources.items() if name != UNMASKED
    }
    if benchmark.read_photo:
        everything = [job for of_list in jobs.values() for job in of_list.values()]
        problems = write_photos(everything, benchmark.read_photo, workers, f"{benchmark.name} photos")
        result.problems += _shorten(problems)
    for name, found in sources.items():
        if not found:
            continue
        if name != UNMASKED:
            masked = [job for key, job in jobs[name].items() if key not in benchmark.unmasked]
            counts = write_masks(masked, benchmark.read_source, workers, f"{benchmark.name} {name}")
            result.masks[name] = (counts.made, counts.kept)
            result.problems += _shorten(counts.problems)
        if not set(found) <= read_list_keys(benchmark, description.root, name):
            write_list(benchmark, description.root, name, found)
    result.problems += _missing_images(load_description(description.path, description.root))
    return result


def lists_table(benchmark: Benchmark, description: Description, masks: dict[str, tuple[int, int]]) -> str:
    """Tabulate the existing lists: their images, the published number, and the masks made."""
    published = published_lists(benchmark.name)
    rows = []
    for name in description.present():
        keys = read_list_keys(benchmark, description.root, name)
        known = published.get(name)
        check = ""
        if known:
            same = keys_digest(keys) == known.digest if known.digest else len(keys) == known.images
            check = "as published" if same else "differs"
        rows.append((f"{benchmark.name}_{name}", len(keys), known.images if known else "", check, *masks.get(name, ())))
    return tabulate(rows, headers=("data set", "images", "published", "", "masks made", "there already"))


def _drop_others(benchmark: Benchmark, sources: Sources) -> list[str]:
    """Remove sources, in place, whose names are not of the benchmark, and return a message that names them.

    In a list they would stop every later run. Files of systems and editors are removed without a message.
    """
    others = [(found, key) for found in sources.values() for key in found if not benchmark.file_name.fullmatch(key)]
    for found, key in others:
        found.pop(key)
    odd = sorted({key for _, key in others if not is_system_file(PurePath(key))})
    if not odd:
        return []
    shown = ", ".join(odd[:_MAX_SHOWN])
    return [f"{benchmark.name}: {len(odd)} images have names that it does not give, such as {shown}; take them away"]


def _fewer_than_published(benchmark: Benchmark, root: Path, sources: Sources) -> list[str]:
    published = published_lists(benchmark.name)
    return [
        f"{root}: has {len(found)} of the {published[name].images} published images of {name!r}; complete the data set"
        for name, found in sources.items()
        if len(found) < published[name].images and (found or name != UNMASKED)
    ]


def _mask_jobs(
    benchmark: Benchmark, description: Description, name: str, found: Mapping[str, Any]
) -> dict[str, MaskJob]:
    jobs = {}
    for key in sorted(found):
        entry = parse_line(benchmark.line(key, name), description.image, description.mask)
        jobs[key] = MaskJob(description.root / entry.mask, found[key], description.root / entry.image)
    return jobs


def _missing_images(description: Description) -> list[str]:
    """Messages for lists with missing images, except those that an earlier list has named."""
    problems: list[str] = []
    seen: set[str] = set()
    for name in description.present():
        file = description.root / description.lists[name]
        if not file.is_file():
            continue
        images = [entry.image for entry in read_list(file, description.image, description.mask)]
        missing = [image for image in images if image not in seen and not (description.root / image).is_file()]
        seen.update(images)
        if missing:
            shown = ", ".join(missing[:_MAX_SHOWN])
            problems.append(
                f"{file}: names {len(missing)} of {len(images)} images that are not there, such as {shown}; "
                f"unpack the archive again"
            )
    return problems


def _shorten(problems: list[str]) -> list[str]:
    more = [f"... and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
    return problems[:_MAX_SHOWN] + more
