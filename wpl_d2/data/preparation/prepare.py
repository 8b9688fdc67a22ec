"""From unpacked archives to a data set that its description can read, step by step and as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from ...errors import InputError
from ..datasets.folder import Description
from ..datasets.lists import Entry, parse_line
from .benchmark import Benchmark
from .files import MaskJob, write_masks
from .published import digest_of, published_lists
from .splits import read_list_keys, write_list

_MAX_SHOWN = 3


@dataclass
class Prepared:
    """Masks by list, (made, there already), and what must be mended, `file: what is wrong; how to mend it`."""

    masks: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def prepare_images(benchmark: Benchmark, description: Description, workers: int) -> Prepared:
    """Make the masks that are missing, and the lists "train" and "val" of what is there.

    Args:
        benchmark: the data set.
        description: the same, its root being where the archives were unpacked.
        workers: number of processes.
    """
    result = Prepared()
    try:
        sources = benchmark.find_sources(description.root)
    except InputError as error:
        return Prepared(problems=[*benchmark.missing_archives(description.root), str(error)])
    published = published_lists(benchmark.name)
    if any(len(found) < published[name].images for name, found in sources.items()):
        result.problems += benchmark.missing_archives(description.root)
    for name, found in sources.items():
        entries = {
            key: parse_line(benchmark.line(key, name), description.image, description.mask) for key in sorted(found)
        }
        jobs = [MaskJob(description.root / entry.mask, found[key]) for key, entry in entries.items()]
        if not jobs:
            continue
        counts = write_masks(jobs, benchmark.read_source, workers, f"{benchmark.name} {name}")
        result.masks[name] = (counts.made, counts.kept)
        result.problems += _shorten(counts.problems) + _missing_images(description.root, name, list(entries.values()))
        if not set(found) <= read_list_keys(benchmark, description.root, name):
            write_list(benchmark, description.root, name, found)
    return result


def lists_table(benchmark: Benchmark, description: Description, masks: dict[str, tuple[int, int]]) -> str:
    """The lists that are there as text: their images beside the published number, and what became of their masks."""
    published = published_lists(benchmark.name)
    rows = []
    for name in description.present():
        keys = read_list_keys(benchmark, description.root, name)
        known = published.get(name)
        check = ""
        if known:
            same = digest_of(keys) == known.digest if known.digest else len(keys) == known.images
            check = "as published" if same else "differs"
        rows.append((f"{benchmark.name}_{name}", len(keys), known.images if known else "", check, *masks.get(name, ())))
    return tabulate(rows, headers=("data set", "images", "published", "", "masks made", "there already"))


def _missing_images(root: Path, name: str, entries: list[Entry]) -> list[str]:
    missing = [root / entry.image for entry in entries if not (root / entry.image).is_file()]
    if not missing:
        return []
    return [
        f"{missing[0]}: is missing, as {len(missing)} of {len(entries)} images of {name!r} are; "
        f"unpack the archive again"
    ]


def _shorten(problems: list[str]) -> list[str]:
    more = [f"... and {len(problems) - _MAX_SHOWN} more masks"] if len(problems) > _MAX_SHOWN else []
    return problems[:_MAX_SHOWN] + more
