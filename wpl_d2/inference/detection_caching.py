"""Running a detector over whole data sets once, to store its detections (`wpl_d2.data.detection_cache`)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation import inference_context
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.utils import comm
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from tqdm import tqdm

from ..data import EvalMapper
from ..data.detection_cache import CacheMetadata, DetectionCache, ImageDetections, image_key
from ..data.loader import build_test_loader
from ..structures import Detections
from ..utils.background import in_background
from ..utils.errors import InputError
from .engines import Engine, LocalEngine, Part, Work

_LOGGER = logging.getLogger(__name__)
PART = 64
"""Images of a part: what a stopped run has to do again at most, in each process."""

Records = Sequence[dict[str, Any]]


def cache_detections(
    model: nn.Module | Callable[[], nn.Module],
    records: Records,
    metadata: CacheMetadata,
    object_ids: Sequence[int],
    path: str | Path,
    workers: int = 2,
    engine: Engine | None = None,
) -> DetectionCache:
    """Detect objects in images, from the model's least score on, and write a detection cache. All processes must call.

    The processes divide the images, in parts that are files of their own in the folder `PATH.parts` until all are
    there: a run that was stopped resumes. Images that the file already has are skipped.

    Args:
        model: gives `{"instances"}` for a dict with "image", as Detectron2's detectors do. Its limit on the detections
            of an image, TEST.DETECTIONS_PER_IMAGE, is removed for good. For an engine other than the local one what
            loads it there, which must be picklable.
        records: dataset dicts; images that occur twice are read once. No mask is opened.
        metadata: of the detections.
        object_ids: semantic class id of each of the model's classes.
        path: the file, on a disk that all machines share.
        workers: processes that read images, for each process.
        engine: where it is done, by default in this process.

    Returns:
        what is in the file.

    Raises:
        InputError: there are no images, the file is of another detector or data set, or another machine's parts are
            missing.
    """
    if not records:
        raise InputError(f"{path}: there are no images to find boxes on; name a data set that has some")
    path = Path(path)
    known = _load_known(path, metadata)
    new = {image_key(record): record for record in records}
    keys = sorted(new.keys() - known.keys())
    parts = [[new[key] for key in keys[start : start + PART]] for start in range(0, len(keys), PART)]
    files = [path.with_name(f"{path.name}.parts") / f"{number:05d}.npz" for number in range(len(parts))]
    own = slice(comm.get_rank(), None, comm.get_world_size())
    todo = [pair for pair in zip(files[own], parts[own], strict=True) if not _is_complete(*pair, metadata)]
    opener = (lambda: model) if isinstance(model, nn.Module) else model
    _write_parts(engine or LocalEngine(), DetectionJob(opener, tuple(object_ids), workers), todo, metadata)
    comm.synchronize()
    if files and comm.is_main_process():
        _merge(known, files, metadata, path)
    comm.synchronize()
    return DetectionCache.load(path)


def _remove_limit(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, FastRCNNOutputLayers):
            part.test_topk_per_image = -1  # Detectron2's word for: no limit


def _load_known(path: Path, metadata: CacheMetadata) -> dict[str, ImageDetections]:
    if not path.exists():
        return {}
    cache = DetectionCache.load(path)
    if cache.metadata != metadata:
        raise InputError(
            f"{path}: is there already, with boxes of another detector or data set; remove it or choose another file"
        )
    return dict(cache)


def _is_complete(file: Path, part: Records, metadata: CacheMetadata) -> bool:
    try:
        cache = DetectionCache.load(file)
    except InputError:
        return False  # missing or cut short
    return cache.metadata == metadata and list(cache) == [image_key(record) for record in part]


def _write_parts(
    engine: Engine, job: DetectionJob, todo: Sequence[tuple[Path, list[dict[str, Any]]]], metadata: CacheMetadata
) -> None:
    """Write the parts of this process."""
    if not todo:
        return
    total = sum(len(part) for _, part in todo)
    with tqdm(total=total, desc="boxes", unit="image", mininterval=5, disable=not comm.is_main_process()) as progress:
        for (file, _), results in zip(todo, engine.map(job, [Part("", part) for _, part in todo]), strict=True):
            images = {}
            for key, found, problem in results:
                images[key] = found
                if problem:
                    _LOGGER.warning("without boxes: %s", problem)
                progress.update()
            DetectionCache.from_images(metadata, images).save(file)


@dataclass(frozen=True)
class DetectionJob:
    """The detection of objects in parts of a list of images, as a `Job`.

    Attributes:
        open_model: called in each process that detects.
        object_ids: semantic class id of each of the model's classes.
        workers: processes that read images.
    """

    open_model: Callable[[], nn.Module]
    object_ids: tuple[int, ...]
    workers: int

    def start(self) -> Work:
        """See `Job`: the results of a part are each image's key, its detections, and why it could not be read."""
        model = self.open_model()
        _remove_limit(model)
        return partial(self._detect, model)

    def _detect(self, model: nn.Module, parts: Sequence[Records]) -> Iterator[Iterator[Any]]:
        records = [record for part in parts for record in part]
        loader = build_test_loader(records, EvalMapper(lenient=True), self.workers, SequentialSampler(records))
        items = in_background((item for (item,) in loader), 2)
        ids = torch.tensor(self.object_ids)
        with inference_context(model), torch.no_grad():
            for part in parts:
                yield ((image_key(record), *_detect(model, next(items), ids)) for record in part)


def _detect(model: nn.Module, item: dict[str, Any], object_ids: Tensor) -> tuple[ImageDetections, str]:
    if isinstance(item["image"], InputError):  # training skips such images too
        return ((0, 0), Detections.none()), str(item["image"])
    instances = model([item])[0]["instances"].to("cpu")
    return ((item["height"], item["width"]), Detections.from_instances(instances, object_ids)), ""


def _merge(known: dict[str, ImageDetections], files: list[Path], metadata: CacheMetadata, path: Path) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: is missing, another machine made it; put {path} where all machines see it")
    for file in files:
        known |= DetectionCache.load(file)
    DetectionCache.from_images(metadata, known).save(path)
    shutil.rmtree(files[0].parent)
