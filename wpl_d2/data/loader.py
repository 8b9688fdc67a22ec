"""Loaders: the endless labeled and unlabeled streams of training, and the loader of evaluation."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain, repeat
from multiprocessing.process import BaseProcess
from typing import Any, TypedDict

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, MapDataset, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

from ..utils.errors import InputError
from ..utils.signals import STOP_SIGNALS, blocked_signals, set_parent_death_signal, unblock_signals
from .component_boxes import attach_component_boxes
from .datasets.folder import image_records
from .detection_cache import load_detection_cache
from .held_out import FitSampler, held_out_images, holds_out
from .mappers import EvalMapper, LabeledMapper, PasteMapper, UnlabeledMapper, build_image_reader
from .pseudo_label_store import pseudo_label_stores, read_stored
from .sampler import ClassBalancedDataset, CountedDataset, CountSampler, PartnerDataset, PartnerSampler, counted_seed
from .verified_files import label_counts

Records = list[dict[str, Any]]

Source = tuple[Records, Callable[[dict[str, Any]], dict[str, Any]]]
"""Dataset dicts, and the mapper that turns them into samples."""


class TrainBatch(TypedDict):
    """What one step gets: samples of `LabeledMapper` (or `PasteMapper`) and of `UnlabeledMapper`.

    `partners` are further unlabeled images, which the framework chose to mix with (`Framework.partner_indices`);
    `held_out` are samples of `LabeledMapper` that train nothing, for a fit of the weight `calibrated` after the step.
    """

    labeled: Records
    unlabeled: Records
    partners: Records
    held_out: Records


def labeled_records(cfg: CfgNode) -> Records:
    """The dataset dicts of `DATASETS.TRAIN`, with component boxes if there is a detector to train.

    Windows of huge images whose masks label no pixel are left out.

    Raises:
        InputError: an image has no mask, or the mask of a window cannot be read.
    """
    records = list(chain.from_iterable(map(DatasetCatalog.get, cfg.DATASETS.TRAIN)))
    require_masks(records, "DATASETS.TRAIN")
    if any("window" in record for record in records):  # of which a few may be drawn and the others left blank
        drawn = label_counts(cfg, records)[:, :-1].sum(axis=1)
        records = [record for record, count in zip(records, drawn, strict=True) if count or "window" not in record]
    if cfg.MODEL.DETECTOR.MODE not in ("shared", "alone"):
        return records
    return attach_component_boxes(records, cfg.MODEL.DETECTOR.CLASSES, cfg.DATASETS.MIN_BOX_AREA)


def unlabeled_records(cfg: CfgNode) -> Records:
    """The dataset dicts of `DATASETS.UNLABELED`, without their masks."""
    records = chain.from_iterable(map(image_records, cfg.DATASETS.UNLABELED))
    kept = ("file_name", "image_id", "exif", "layout", "window")
    return [{key: record[key] for key in kept if key in record} for record in records]


def load_records(name: str, key: str, optional: bool = False, labels: bool = True) -> Records:
    """The dataset dicts of one list.

    Args:
        name: a name in the `DatasetCatalog`.
        key: the config key that names it, for messages.
        optional: return no records if the list cannot be read.
        labels: whether their labels are wanted.

    Raises:
        InputError: it is empty, or cannot be read.
    """
    try:
        records = DatasetCatalog.get(name) if labels else image_records(name)
    except (InputError, OSError) as error:
        if optional:
            return []
        if isinstance(error, InputError):
            raise
        raise InputError(f"{key}: the list {name!r} cannot be read ({error}); put its data there") from error
    if not records:
        raise InputError(f"{key}: the list {name!r} is empty; name one with images")
    return records


def images_per_process(cfg: CfgNode, key: str, processes: int) -> int:
    """The images that one process gets in a step.

    Args:
        cfg: the config.
        key: "IMS_PER_BATCH" or "UNLABELED_IMS_PER_BATCH".
        processes: the number of processes of the run.

    Raises:
        InputError: the batch cannot be divided among them, or each one's part into its micro-batches.
    """
    total, micro_batches = cfg.SOLVER[key], cfg.SOLVER.GRAD_ACCUMULATION
    parts = processes * micro_batches
    if total < 1 or total % parts:
        each = f" with {micro_batches} micro-batches each (SOLVER.GRAD_ACCUMULATION)" * (micro_batches > 1)
        raise InputError(
            f"SOLVER.{key}: {total} images do not divide among {processes} processes{each}; take a multiple of {parts}"
        )
    return total // processes


def require_masks(records: Records, where: str) -> None:
    """Check that all images of a list, `where`, have masks.

    Raises:
        InputError: one has none, or labels that could not be converted to one.
    """
    for record in records:
        if "sem_seg_file_name" not in record:
            raise InputError(missing_mask(record, where))
        if "sem_seg_error" in record:
            raise InputError(record["sem_seg_error"])


def missing_mask(record: dict[str, Any], where: str) -> str:
    """The message for an image without a mask in a list, `where`, that needs masks."""
    if "sem_seg_missing" in record:
        return (
            f"{record['file_name']}: is in {where}, but has no {record['sem_seg_missing']}; add it or unlist the image"
        )
    return (
        f"{record['file_name']}: is in {where}, but nothing says where its mask is; write `image mask` in its line, or "
        "mend 'image' and 'mask' of the data set's YAML"
    )


def labeled_dataset(cfg: CfgNode) -> CountedDataset:
    """The labeled stream's samples by counter; see `held_out_images` for those that come late."""
    records = labeled_records(cfg)
    late: tuple[int, ...] = ()
    until = 0
    if holds_out(cfg):
        held_out = held_out_images(cfg, records)
        late, until = held_out.indices, held_out.end * cfg.SOLVER.IMS_PER_BATCH
    pasted = [record for index, record in enumerate(records) if index not in late]
    mapper = PasteMapper(cfg, pasted) if cfg.INPUT.PASTE.PROB else LabeledMapper(cfg)
    build: Callable[..., CountedDataset] = CountedDataset
    if cfg.DATALOADER.CLASS_BALANCED:
        build = partial(ClassBalancedDataset, shown=label_counts(cfg, records)[:, :-1] > 0)
    return build(records, mapper, cfg.SEED, "labeled", held_out=late, until=until)


def unlabeled_source(cfg: CfgNode) -> Source:
    """The unlabeled dataset dicts and their mapper.

    With MODEL.DETECTOR.MODE cached samples have detections; with DATASETS.PSEUDO_LABELS they have pseudo-labels, and
    images without any are left out.

    Raises:
        InputError: the cached detections do not fit, or none of them reaches RPPI.BOX_SCORE; or pseudo-labels are
            missing.
    """
    records = unlabeled_records(cfg)
    stores = pseudo_label_stores(cfg)
    if stores:
        records = [record for record in records if any(record in store for store in stores)]
    classes = MetadataCatalog.get(cfg.DATASETS.UNLABELED[0]).get("stuff_classes")
    cache = load_detection_cache(cfg, classes, records)
    if cache is not None and cfg.RPPI.ENABLED:
        _check_scores_reach(cfg.RPPI.BOX_SCORE, cache.scores(records), cache.path)
    return records, UnlabeledMapper(cfg, cache=cache, stored=partial(read_stored, stores) if stores else None)


def _check_scores_reach(min_score: float, scores: torch.Tensor, path: str) -> None:
    if not (scores >= min_score).any():
        best = f", whose best score is {scores.max():.2f}" if len(scores) else ""
        raise InputError(
            f"RPPI.BOX_SCORE: {min_score:g} is reached by none of the {len(scores)} boxes of unlabeled images in "
            f"{path}{best}; lower it, or set RPPI.ENABLED False"
        )


def unlabeled_dataset(cfg: CfgNode, source: Source | None = None) -> CountedDataset:
    """The unlabeled stream's samples by counter; images that cannot be read are skipped.

    Args:
        cfg: the config, after `setup_datasets`.
        source: by default `unlabeled_source`.
    """
    return CountedDataset(*(source or unlabeled_source(cfg)), cfg.SEED, "unlabeled", skip=True)


def build_labeled_loader(cfg: CfgNode, start_iter: int = 0) -> DataLoader:
    """This process's part of the labeled stream.

    Args:
        cfg: the config, after `setup_datasets`.
        start_iter: the first step; its batches are the same in a run that started at 0.

    Returns:
        An endless iterable of lists of `SOLVER.IMS_PER_BATCH` / processes samples.

    Raises:
        InputError: the batch cannot be divided among the processes, or a mask is missing.
    """
    return _build_loader(cfg, labeled_dataset(cfg), "IMS_PER_BATCH", start_iter)


def build_unlabeled_loader(cfg: CfgNode, start_iter: int = 0, source: Source | None = None) -> DataLoader:
    """This process's part of the unlabeled stream, in lists of `SOLVER.UNLABELED_IMS_PER_BATCH` / processes samples.

    Arguments, result and errors are those of `build_labeled_loader`; `source` is that of `unlabeled_dataset`.
    """
    return _build_loader(cfg, unlabeled_dataset(cfg, source), "UNLABELED_IMS_PER_BATCH", start_iter)


def build_partner_loader(
    cfg: CfgNode,
    partner_indices: deque[list[int]],
    start_iter: int = 0,
    unreadable: torch.Tensor | None = None,
    source: Source | None = None,
) -> DataLoader:
    """The partners that this process mixes its unlabeled images with, step by step.

    With workers, one of them makes the next step's samples while this step runs: when a step's samples are fetched,
    `partner_indices` must already hold the next one's indices.

    Args:
        cfg: the config, after `setup_datasets`.
        partner_indices: indices into the unlabeled list for `start_iter` and the steps after it; the trainer appends.
        start_iter: the step to begin with.
        unreadable: which images the unlabeled stream could not read, shared with it.
        source: see `unlabeled_dataset`.

    Returns:
        An endless iterable of lists of samples.
    """
    # The stream's name seeds the samples: another one would change every run.
    dataset = PartnerDataset(
        *(source or unlabeled_source(cfg)), cfg.SEED, "requested", skip=True, unreadable=unreadable
    )
    total = cfg.SOLVER.UNLABELED_IMS_PER_BATCH
    sampler = PartnerSampler(partner_indices, start_iter, total, comm.get_rank(), comm.get_world_size())
    workers = min(1, cfg.DATALOADER.NUM_WORKERS)
    return _data_loader(cfg, dataset, workers, batch_sampler=sampler, prefetch_factor=1 if workers else None)


def build_held_out_loader(cfg: CfgNode, start_iter: int = 0) -> DataLoader:
    """This process's labeled images for the fits of the weight `calibrated`, step by step; none in most steps.

    Args:
        cfg: the config, after `setup_datasets`; it must hold images out.
        start_iter: the step to begin with.
    """
    records = labeled_records(cfg)
    held_out = held_out_images(cfg, records)
    dataset = CountedDataset([records[index] for index in held_out.indices], LabeledMapper(cfg), cfg.SEED, "held out")
    rank, world = comm.get_rank(), comm.get_world_size()
    images = held_out.images_per_process(world, cfg.SOLVER.GRAD_ACCUMULATION)
    sampler = FitSampler(held_out.fits, images, start_iter, rank, world)
    workers = min(1, cfg.DATALOADER.NUM_WORKERS)
    # So many steps, most of them without images, give the worker time for a fit's images.
    return _data_loader(cfg, dataset, workers, batch_sampler=sampler, prefetch_factor=16 if workers else None)


def build_train_loader(
    cfg: CfgNode,
    start_iter: int = 0,
    partner_indices: deque[list[int]] | None = None,
    source: Source | None = None,
) -> Iterator[TrainBatch]:
    """All streams side by side.

    Args:
        cfg: the config, after `setup_datasets`.
        start_iter: the step to begin with.
        partner_indices: see `build_partner_loader`; None or empty: there are no partners.
        source: of the unlabeled images, see `unlabeled_dataset`.

    Returns:
        An endless iterator, to be kept for the whole run; `unlabeled` is empty where `DATASETS.UNLABELED` is.
    """
    labeled = iter(build_labeled_loader(cfg, start_iter))
    unlabeled: Iterator[Records] = repeat([])
    partners: Iterator[Records] = repeat([])
    held_out: Iterator[Records] = repeat([])
    if cfg.DATASETS.UNLABELED:
        loader = build_unlabeled_loader(cfg, start_iter, source)
        unlabeled = iter(loader)
        if partner_indices:
            unreadable = loader.dataset.unreadable  # type: ignore[attr-defined]
            partners = iter(build_partner_loader(cfg, partner_indices, start_iter, unreadable, source))
    if holds_out(cfg):
        held_out = iter(build_held_out_loader(cfg, start_iter))
    batches = zip(labeled, unlabeled, partners, held_out, strict=True)
    return (TrainBatch(labeled=a, unlabeled=b, partners=c, held_out=d) for a, b, c, d in batches)


def build_test_loader(
    records: Sequence[dict[str, Any]], mapper: EvalMapper, num_workers: int, sampler: Sampler[int] | None = None
) -> DataLoader:
    """Images one at a time, as Detectron2's `build_detection_test_loader` gives them.

    Args:
        records: dataset dicts.
        mapper: reads them.
        num_workers: processes that read them; 0: this one.
        sampler: the order; by default the list's, divided among the processes of the run.
    """
    dataset = MapDataset(DatasetFromList(list(records), copy=False), mapper)
    sampler = sampler or InferenceSampler(len(records))
    return WorkerLoader(dataset, batch_size=1, sampler=sampler, num_workers=num_workers, collate_fn=_as_list)


def image_cache_in_use(cfg: CfgNode) -> AbstractContextManager[None]:
    """A context in which loaders add the images that they decode to the cache of `DATALOADER`, if there is one."""
    cache = build_image_reader(cfg).cache
    return cache.in_use() if cache else nullcontext()


def _build_loader(cfg: CfgNode, dataset: CountedDataset, key: str, start_iter: int) -> DataLoader:
    world = comm.get_world_size()
    own = images_per_process(cfg, key, world)
    sampler = CountSampler(start_iter * own * world, comm.get_rank(), world)
    return _data_loader(cfg, dataset, cfg.DATALOADER.NUM_WORKERS, batch_size=own, sampler=sampler)


def _data_loader(cfg: CfgNode, dataset: CountedDataset, workers: int, **batching: Any) -> DataLoader:
    return WorkerLoader(
        dataset,
        **batching,
        num_workers=workers,
        collate_fn=_as_list,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        # Its own generator: the loader draws a seed for its workers, which must not disturb the training's.
        generator=torch.Generator().manual_seed(counted_seed(cfg.SEED, dataset.stream, "workers")),
    )


def _as_list(samples: Records) -> Records:
    return samples


class WorkerLoader(DataLoader):
    """A `DataLoader` whose workers ignore the signals that stop a run, and end with the process that started them.

    That process still needs them to finish its step, and ends them itself.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `DataLoader`."""
        super().__init__(*args, **kwargs)
        self.worker_init_fn = _init_worker

    def __iter__(self) -> Any:
        """Start the workers, if there are any, with signals blocked from their first instruction on."""
        with blocked_signals(method=(self.multiprocessing_context or multiprocessing).get_start_method()):
            iterator: Any = super().__iter__()
        if self.num_workers:
            atexit.register(_end_workers, weakref.ref(iterator), iterator._workers)
        return iterator


def _end_workers(reference: weakref.ref[Any], workers: Sequence[BaseProcess]) -> None:
    """End the workers of an iterator that an error left behind: Python would wait for them, as they ignore SIGTERM."""
    if (iterator := reference()) is not None:
        iterator._shutdown_workers()
    for worker in workers:
        worker.kill()  # those that were not done in the seconds that PyTorch waits


def _init_worker(worker_id: int) -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    unblock_signals()
    set_parent_death_signal(signal.SIGKILL)
    # Looking for garbage writes into every object, and so would copy the whole of the trainer's memory.
    gc.freeze()
