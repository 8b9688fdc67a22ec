"""Running a detector over whole data sets once, to keep its boxes (`wpl_d2.data.detection_cache`)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
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
from ..data.detection_cache import CacheMetadata, DetectionCache, ImageBoxes, image_key
from ..data.loader import build_whole_image_loader
from ..utils.errors import InputError

_LOGGER = logging.getLogger(__name__)
PART = 64
"""Images of a part: what a stopped run has to do again at most, in each process."""

Records = Sequence[dict[str, Any]]


def cache_boxes(
    model: nn.Module,
    records: Records,
    origin: CacheMetadata,
    object_ids: Sequence[int],
    path: str | Path,
    workers: int = 2,
) -> DetectionCache:
    """Find all boxes of images, from the model's least score on, and write them to a file. All processes must call it.

    The processes share the images among them, in parts that are files of their own in the folder `PATH.parts` until
    all are there: a run that was stopped goes on where it was. Images that the file has already are not looked at
    again.

    Args:
        model: gives `{"instances"}` for a dict with "image", as Detectron2's detectors do. Its limit on the boxes of an
            image, TEST.DETECTIONS_PER_IMAGE, is taken away for good.
        records: dataset dicts; images that occur twice are looked at once. No mask is opened.
        origin: of the boxes.
        object_ids: semantic class id of each of the model's classes.
        path: the file; on a disk that all machines share.
        workers: processes that read images, for each process.

    Returns:
        what is in the file.

    Raises:
        InputError: the file is there, but of another detector or data set; or another machine's parts are missing.
    """
    if not records:
        raise InputError(f"{path}: there are no images to find boxes on; name a data set that has some")
    path = Path(path)
    _take_all_boxes(model)
    known = _known(path, origin)
    new = {image_key(record): record for record in records}
    keys = sorted(new.keys() - known.keys())
    parts = [[new[key] for key in keys[start : start + PART]] for start in range(0, len(keys), PART)]
    files = [path.with_name(f"{path.name}.parts") / f"{number:05d}.npz" for number in range(len(parts))]
    own = slice(comm.get_rank(), None, comm.get_world_size())
    todo = [pair for pair in zip(files[own], parts[own], strict=True) if not _is_done(*pair, origin)]
    _find(model, todo, origin, torch.tensor(object_ids), workers)
    comm.synchronize()
    if files and comm.is_main_process():
        _merge(known, files, origin, path)
    comm.synchronize()
    return DetectionCache.load(path)


def _take_all_boxes(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, FastRCNNOutputLayers):
            part.test_topk_per_image = -1  # Detectron2's word for: no limit


def _known(path: Path, origin: CacheMetadata) -> dict[str, ImageBoxes]:
    if not path.exists():
        return {}
    cache = DetectionCache.load(path)
    if cache.origin != origin:
        raise InputError(
            f"{path}: is there already, with boxes of another detector or data set; remove it or choose another file"
        )
    return dict(cache.images)


def _is_done(file: Path, part: Records, origin: CacheMetadata) -> bool:
    try:
        cache = DetectionCache.load(file)
    except InputError:
        return False  # missing or cut short
    return cache.origin == origin and list(cache.images) == [image_key(record) for record in part]


def _find(
    model: nn.Module,
    todo: list[tuple[Path, list[dict[str, Any]]]],
    origin: CacheMetadata,
    object_ids: Tensor,
    workers: int,
) -> None:
    """Write the parts of this process."""
    if not todo:
        return
    records = [record for _, part in todo for record in part]
    loader = build_whole_image_loader(records, EvalMapper(lenient=True), workers, SequentialSampler(records))
    bar = tqdm(loader, "boxes", unit="image", mininterval=5, disable=not comm.is_main_process())
    items = (item for (item,) in bar)
    with inference_context(model), torch.no_grad():
        for file, part in todo:
            images = {image_key(record): _detect(model, next(items), object_ids) for record in part}
            DetectionCache(origin, images).save(file)


def _detect(model: nn.Module, item: dict[str, Any], object_ids: Tensor) -> ImageBoxes:
    if isinstance(item["image"], InputError):  # training skips such images too
        _LOGGER.warning("without boxes: %s", item["image"])
        return ImageBoxes.none()
    found = model([item])[0]["instances"].to("cpu")
    return ImageBoxes(
        size=(item["height"], item["width"]),
        boxes=found.pred_boxes.tensor.numpy(),
        scores=found.scores.numpy(),
        classes=object_ids[found.pred_classes].numpy(),
    )


def _merge(known: dict[str, ImageBoxes], files: list[Path], origin: CacheMetadata, path: Path) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: is missing, another machine made it; put {path} where all machines see it")
    for file in files:
        known |= DetectionCache.load(file).images
    DetectionCache(origin, known).save(path)
    shutil.rmtree(files[0].parent)
