"""Importing published lists in any format, verified by checksums, and completing them.

A list is identified by its images, not by its name or format: the formats of UniMatch, U2PL, CPS and AEL for the same
split give the same sorted list here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import url2pathname

from detectron2.utils.file_io import PathManager

from ...utils.errors import InputError
from ...utils.files import is_system_file, read_text, write_text
from ..datasets.lists import EXTRA
from .benchmark import Benchmark


@dataclass(frozen=True)
class ImportedList:
    """An imported list, its file, and whether that equals the published file byte for byte."""

    name: str
    file: str
    exact: bool


def import_lists(benchmark: Benchmark, root: Path, source: str) -> tuple[list[ImportedList], list[str]]:
    """Write the published lists found at `source` to `root/splits`.

    Args:
        benchmark: the data set.
        root: its folder.
        source: a folder, searched recursively, or a URL (also `file://`) below which files have their published paths.

    Returns:
        the imported lists, and a message for each file with images of this data set that is not a published list.

    Raises:
        InputError: nothing is found, a file differs from the list published under its path, or a list of that name
            with other images exists.
    """
    files = _find(benchmark, source)
    imported: dict[str, ImportedList] = {}
    unknown: list[str] = []
    found: dict[str, set[str]] = {}
    for path, file in files.items():
        data = file.read_bytes()
        keys = benchmark.parse_keys(data.decode("utf-8-sig", errors="replace")) or []
        name = _recognise(benchmark, keys)
        if name:
            exact = hashlib.sha256(data).hexdigest() in published_lists(benchmark.name)[name].file_digests
            if name not in imported or exact:
                imported[name], found[name] = ImportedList(name, path, exact), set(keys)
        elif any(file.resolve().as_posix().endswith(f"/{known}") for known in _paths(benchmark)):
            raise InputError(
                f"{file}: is not the list published as {path}, it has {len(keys)} images and another SHA-256; "
                f"fetch it again, or take it away"
            )
        elif keys:
            unknown.append(f"{file}: its {len(keys)} images are not a published list; fetch it again, or take it away")
    if not found:
        message = f"{source}: has no published list of {benchmark.name}; give a folder of lists, or {benchmark.lists}"
        raise InputError("\n".join([message, *unknown]))
    found |= _whole(benchmark, found)
    for name, images in found.items():
        write_list(benchmark, root, name, images)
    return sorted(imported.values(), key=lambda item: item.name), unknown


def drop_system_files(root: Path) -> list[str]:
    """Remove lines that name files of systems and editors from all lists.

    Returns:
        a message per changed list.
    """
    mended = []
    for file in _lists(root):
        lines = read_text(file).splitlines()
        kept = [
            line for line in lines if not any(is_system_file(PurePath(PurePath(path).name)) for path in line.split())
        ]
        if len(kept) < len(lines):
            _write_lines(file, kept)
            dropped = next(line for line in lines if line not in kept)
            mended.append(
                f"{file}: named {len(lines) - len(kept)} files that are not images, such as {dropped.strip()}"
            )
    return mended


def write_unlabeled_lists(benchmark: Benchmark, root: Path) -> list[str]:
    """Write the unlabeled list of every split that has none (see `unlabeled_keys`).

    Returns:
        messages for lists that cannot be written, and for existing ones with labeled images.
    """
    impossible, problems = [], []
    train = read_list_keys(benchmark, root, "train")
    for file in _lists(root, "_labeled"):
        name = f"{file.stem.removesuffix('_labeled')}_unlabeled"
        labeled = read_list_keys(benchmark, root, file.stem)
        if list_file(root, name).exists():
            problems += _shared_images(labeled & read_list_keys(benchmark, root, name), file, list_file(root, name))
            continue
        known = published_lists(benchmark.name).get(name)
        rest = unlabeled_keys(benchmark, root, labeled)
        wrong = known and (keys_digest(rest) != known.digest if known.digest else len(rest) != known.images)
        if wrong or not labeled <= train:
            impossible.append(name)
        else:
            write_list(benchmark, root, name, rest)
    if impossible:
        problems.append(
            f"{list_file(root, 'train')}: has {len(train)} images, not all that {', '.join(impossible)} must be "
            f"made of; complete the data set, or import those lists"
        )
    return problems


def unlabeled_keys(benchmark: Benchmark, root: Path, labeled: set[str]) -> set[str]:
    """The unlabeled images of a split: the training list without the `labeled` images, and the list `EXTRA`."""
    return (read_list_keys(benchmark, root, "train") - labeled) | read_list_keys(benchmark, root, EXTRA)


def read_own_lists(file: str, keys: Callable[[list[str]], Iterable[str]] = frozenset) -> dict[str, frozenset[str]]:
    """Read the lists that this project publishes itself, and make the unlabeled ones as `unlabeled_keys` does.

    Args:
        file: beside this module; a line is the name of a list, and words. Lines that begin with "#" are skipped.
        keys: the words of a line -> keys of images in the list; by default the words are the keys.
    """
    lists: dict[str, frozenset[str]] = defaultdict(frozenset)
    for line in Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, *words = line.split()
            lists[name] |= frozenset(keys(words))
    everything = lists["train"] | lists.get(EXTRA, frozenset())
    labeled = {name: images for name, images in lists.items() if name.endswith("_labeled")}
    return lists | {name.replace("_labeled", "_unlabeled"): everything - images for name, images in labeled.items()}


def list_file(root: Path, name: str) -> Path:
    """The file of a list in a data set's folder."""
    return root / "splits" / f"{name}.txt"


def read_list_keys(benchmark: Benchmark, root: Path, name: str) -> set[str]:
    """Read the image keys of a list; empty if it is missing.

    Raises:
        InputError: it is not of this data set.
    """
    file = list_file(root, name)
    if not file.is_file():
        return set()
    keys = benchmark.parse_keys(read_text(file))
    if keys is None:
        raise InputError(f"{file}: has a line that names no image of {benchmark.name}; mend it or take it away")
    return set(keys)


def write_list(benchmark: Benchmark, root: Path, name: str, keys: Collection[str]) -> None:
    """Write a sorted list, unless it exists with the same images; a list of some of them is completed.

    Raises:
        InputError: a list of that name with other images exists.
    """
    old, file = check_list_writable(benchmark, root, name, keys), list_file(root, name)
    if file.exists() and old == set(keys):
        return
    _write_lines(file, [benchmark.line(key, name) for key in sorted(keys)])


def check_list_writable(benchmark: Benchmark, root: Path, name: str, keys: Collection[str]) -> set[str]:
    """Check that `write_list` can write a list.

    Returns:
        the images of the existing list of that name.

    Raises:
        InputError: a list of that name with other images exists.
    """
    file = list_file(root, name)
    old = read_list_keys(benchmark, root, name)
    if not old <= set(keys):
        raise InputError(
            f"{file}: has {len(old)} images, and not just those of the {len(keys)} to be written; "
            f"take it away to have it written anew"
        )
    return old


def _write_lines(file: Path, lines: Iterable[str]) -> None:
    write_text(file, "".join(f"{line}\n" for line in lines))


def _lists(root: Path, ending: str = "") -> list[Path]:
    return [
        file for file in sorted((root / "splits").glob(f"*{ending}.txt")) if not is_system_file(PurePath(file.name))
    ]


def _shared_images(shared: set[str], labeled: Path, unlabeled: Path) -> list[str]:
    if not shared:
        return []
    return [
        f"{unlabeled}: has {len(shared)} images of {labeled.name} too, such as {min(shared)}; "
        f"take it away to have it written anew"
    ]


def _find(benchmark: Benchmark, source: str) -> dict[str, Path]:
    """Find or download text files, by their path below `source`."""
    address = urlparse(source)
    if address.scheme in ("", "file"):
        folder = Path(url2pathname(address.path)) if address.scheme else Path(source).expanduser()
        if not folder.is_dir():
            mend = f"give a folder of lists, or an address such as {benchmark.lists}"
            raise InputError(f"{source}: no such folder; {mend}")
        places = {file.relative_to(folder): file for file in sorted(folder.rglob("*.txt"))}
        return {place.as_posix(): file for place, file in places.items() if not is_system_file(place)}
    files = {}
    for path in _paths(benchmark):
        try:
            files[path] = Path(PathManager.get_local_path(f"{source.rstrip('/')}/{path}"))
        except HTTPError as error:
            if error.code != 404:
                raise InputError(
                    f"{source}: cannot be read ({error}); try again, or fetch the lists by hand"
                ) from error
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error}); try again, or fetch the lists by hand") from error
    return files


def _paths(benchmark: Benchmark) -> list[str]:
    return sorted(path for known in published_lists(benchmark.name).values() for path in known.paths)


def _recognise(benchmark: Benchmark, keys: Collection[str]) -> str:
    digest = keys_digest(keys)
    names = (name for name, known in published_lists(benchmark.name).items() if known.digest == digest)
    return next(names, "")


def _whole(benchmark: Benchmark, found: dict[str, set[str]]) -> dict[str, set[str]]:
    """The training list, if both lists of a split were found."""
    for name, keys in found.items():
        whole = keys | found.get(name.replace("labeled", "unlabeled"), set())
        if name.endswith("_labeled") and _recognise(benchmark, whole) == "train":
            return {"train": whole}
    return {}


_TABLE = Path(__file__).with_name("published_splits.txt")
_UNKNOWN = "-"


@dataclass
class PublishedList:
    """A published list.

    Attributes:
        images: number of images.
        digest: of the images (see `keys_digest`); "" if unknown.
        paths: of its files in their publishers' folders of lists.
        file_digests: SHA-256 of these files.
    """

    images: int
    digest: str
    paths: set[str] = field(default_factory=set)
    file_digests: set[str] = field(default_factory=set)


@cache
def published_lists(dataset: str) -> dict[str, PublishedList]:
    """Read the published lists of a benchmark, by this project's names, such as "92_labeled", "train" or "val".

    Args:
        dataset: the benchmark's name.
    """
    lists: dict[str, PublishedList] = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{dataset} "):
            _, name, images, digest, file, file_digest = line.split()
            known = lists.setdefault(name, PublishedList(int(images), digest.strip(_UNKNOWN)))
            if file != _UNKNOWN:
                known.paths.add(file)
                known.file_digests.add(file_digest)
    return lists


def keys_digest(keys: Iterable[str]) -> str:
    """SHA-256 of a set of images: of their sorted keys, one per line."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(keys)).encode()).hexdigest()
