"""Doing the parts of a large job, here or on a cluster by Ray Data, and going on with one that was stopped.

A part is a few successive items of a sorted list. What is done with it depends on nothing but the part, so that the
results are the same wherever, in whatever order and however often it is done.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol, cast

import torch

from ..utils.buckets import Bucket, is_url
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, replace_file

Work = Callable[[Iterable[Any]], Iterator[Iterator[Any]]]
"""What does parts: of each it gives the results, one by one, in plain containers of tensors, numbers and texts."""
IMAGES = 64
"""Images of a part: what a stopped job has to do again at most, for each worker."""


class Part(NamedTuple):
    """A part of a job.

    Attributes:
        key: a digest of all that its results depend on; see `digest`.
        item: what is to be done.
    """

    key: str
    item: Any


class Job(Protocol):
    """What is to be done with parts. It is sent to other processes, and must be picklable."""

    def start(self) -> Work:
        """Load models and the like, once in each worker."""


class Engine(Protocol):
    """Where the parts of a job are done."""

    def map(self, job: Job, parts: Sequence[Part], store: PartStore | None = None) -> Iterator[Iterator[Any]]:
        """Do parts.

        Args:
            job: what.
            parts: all are done.
            store: gets the results of each as soon as they are there; all machines must see it.

        Returns:
            the results of each part, in order.
        """


class LocalEngine:
    """In this process."""

    def map(self, job: Job, parts: Sequence[Part], store: PartStore | None = None) -> Iterator[Iterator[Any]]:
        """See `Engine`."""
        made = job.start()([part.item for part in parts])
        return (_stored(part, results, store) for part, results in zip(parts, made, strict=True))


class RayEngine:
    """By the actors of Ray Data: each holds a model, on a GPU of its own if the cluster has any.

    Work is handed out as fast as actors take it. Parts of an actor or a machine that dies are done again by others.
    """

    def __init__(self, address: str = "", workers: int = 0) -> None:
        """Choose the cluster; it is connected to when there is work.

        Args:
            address: of a running cluster, such as "auto" or "first:6379"; by default one is started on this
                machine, and ended afterwards.
            workers: most actors; by default one for each GPU of the cluster, or for each CPU if it has none.

        Raises:
            InputError: Ray is not installed.
        """
        # Before Ray is imported. What it tells of its own doings would bury what this project says.
        for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
            os.environ.setdefault(name, value)
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise InputError("--engine: ray is not installed; run `pip install 'wpl_d2[ray]'`") from error
        self.address, self.workers = address, workers

    def map(self, job: Job, parts: Sequence[Part], store: PartStore | None = None) -> Iterator[Iterator[Any]]:
        """See `Engine`."""
        if not parts:
            return
        import ray

        self._connect()
        try:
            for row in self._dataset(_Worker(job, store, os.getcwd()), parts).iter_rows():
                results = pickle.loads(row["results"])
                if isinstance(results, InputError):
                    raise results
                yield iter(results)
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        import ray

        # Small results and parts pass the object store; the weights too, once a machine.
        own: dict[str, Any] = {} if self.address else {"include_dashboard": False, "num_cpus": self.workers or None}
        try:
            ray.init(self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--address: {self.address} cannot be connected to ({error}); `ray start` it, with the same "
                "versions of Python and Ray"
            ) from error

    def _dataset(self, worker: _Worker, parts: Sequence[Part]) -> Any:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        devices = ray.cluster_resources()
        kind = "GPU" if devices.get("GPU") else "CPU"
        workers = self.workers or max(1, int(devices[kind]))
        one: dict[str, Any] = {f"num_{kind.lower()}s": 1}
        return from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts)).map(
            cast(Any, _Actor),
            fn_constructor_args=(worker,),
            compute=ActorPoolStrategy(min_size=1, max_size=min(workers, len(parts))),
            **one,
        )


@dataclass
class _Worker:
    """Does parts in an actor.

    Attributes:
        job: what is done.
        store: gets the results.
        folder: the current one of the process that asks, from which paths may begin.
    """

    job: Job
    store: PartStore | None
    folder: str

    @cached_property
    def _work(self) -> Work:
        with suppress(OSError):  # not every machine need have it
            os.chdir(self.folder)
        return self.job.start()

    def do(self, part: Part) -> list[Any]:
        """The results of a part."""
        # Each is read to its end before the next is asked for, as if there were one.
        (results,) = [list(_stored(part, made, self.store)) for made in self._work([part.item])]
        return results


class _Actor:
    """An actor of Ray Data, which wants a class."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Do a part. What is wrong with the input or the disk ends the job, in words; Ray would do it again."""
        results: list[Any] | InputError
        try:
            results = self._worker.do(pickle.loads(row["part"]))
        except InputError as error:
            results = InputError(str(error))
        return {"results": pickle.dumps(results)}


def _stored(part: Part, results: Iterator[Any], store: PartStore | None) -> Iterator[Any]:
    """The results of a part, which are stored when all of them were asked for."""
    made = []
    for result in results:
        made.append(result)
        yield result
    if store:
        store.save(part.key, made)


@dataclass(frozen=True)
class SentFile:
    """A file that is sent along with a job, to machines that need not see it.

    Attributes:
        name: of the file.
        content: of the file.
    """

    name: str
    content: bytes

    @classmethod
    def read(cls, file: str | Path) -> SentFile:
        """Read a file here."""
        return cls(Path(file).name, Path(file).read_bytes())

    @property
    def digest(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """The file there, inside of the context."""
        with tempfile.TemporaryDirectory(prefix="wpl_d2_") as folder:
            file = Path(folder, self.name)
            file.write_bytes(self.content)
            yield file


class PartStore:
    """The results of the parts that are done, in a folder of its own, until the job is."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder, on a disk or in a bucket; it is made with the first result."""
        self._bucket = Bucket(str(folder)) if is_url(folder) else None
        self._folder = Path() if self._bucket else Path(folder)

    def keep(self, keys: Iterable[str]) -> set[str]:
        """Which of these parts are done; the results of all others are removed, since this job writes over theirs."""
        files = {PurePath(key).stem: PurePath(key) for key in self._files()}
        wanted = files.keys() & set(keys)
        self._remove([file for key, file in files.items() if key not in wanted])
        return wanted

    def load(self, key: str) -> list[Any]:
        """The results of a part that is done."""
        name = PurePath(f"{key}.pt")
        content = self._bucket.read(name) if self._bucket else (self._folder / name).read_bytes()
        return torch.load(io.BytesIO(content), weights_only=True)

    def save(self, key: str, results: list[Any]) -> None:
        """Store the results of a part, as a whole or not at all.

        Raises:
            UnwritableError: the disk refuses it.
        """
        file = io.BytesIO()
        torch.save(results, file)
        if self._bucket:
            self._bucket.write(PurePath(f"{key}.pt"), file.getvalue())
            return
        with clear_write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{key}.pt"
        replace_file(target, lambda unfinished: unfinished.write_bytes(file.getvalue()))

    def clear(self) -> None:
        """Remove everything."""
        self._remove(self._files())
        if not self._bucket:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _files(self) -> list[PurePath]:
        if self._bucket:
            return list(self._bucket.files())
        return [PurePath(file.name) for file in self._folder.glob("*.pt")]

    def _remove(self, names: Iterable[PurePath]) -> None:
        if self._bucket:
            self._bucket.remove(names)
            return
        for name in names:
            with suppress(FileNotFoundError):
                (self._folder / name).unlink()


def do_parts(engine: Engine, job: Job, parts: Sequence[Part], store: PartStore | None) -> Iterator[Any]:
    """Do a job, or what is left of it.

    Args:
        engine: where.
        job: what.
        parts: all of them.
        store: keeps what is done; None keeps nothing.

    Returns:
        the results of all parts, in order.

    Raises:
        InputError: something is wrong with the input, or a disk is full.
    """
    done = store.keep(part.key for part in parts) if store else set()
    made = engine.map(job, [part for part in parts if part.key not in done], store)
    for part in parts:
        yield from store.load(part.key) if store and part.key in done else next(made)
    next(made, None)  # to its end, where it closes what it has opened


def digest(*facts: Any) -> str:
    """A name for what follows from facts, which are plain containers of numbers and texts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def part_length(batch_size: int) -> int:
    """Images of a part: about `IMAGES`, in whole batches."""
    return -(-IMAGES // batch_size) * batch_size
