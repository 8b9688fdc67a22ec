"""How reliable the pseudo-labels of whole images are: by how little a model's predictions changed in its training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from ..checkpoint.loading import load_model
from ..data.detection_cache import image_key
from ..utils.errors import InputError
from ..utils.files import LineFile, read_text
from .build import build_predict
from .pseudo_labeling import Records, read_images


def image_score(labels: Sequence[Tensor], num_classes: int) -> Tensor:
    """ST++'s score of an image: the mean over earlier models of the mIoU of their labels with the last model's.

    Args:
        labels: (H, W) int64 class ids of each model, the last one's at the end.
        num_classes: number of classes; those that neither of two label maps has do not count.

    Returns:
        a float64 scalar in [0, 1].
    """
    *earlier, last = labels
    return torch.stack([_mean_iou(other, last, num_classes) for other in earlier]).mean()


def _mean_iou(one: Tensor, other: Tensor, num_classes: int) -> Tensor:
    pairs = torch.bincount((one * num_classes + other).flatten(), minlength=num_classes**2)
    counts = pairs.view(num_classes, num_classes).double()
    both = counts.diagonal()
    return (both / (counts.sum(dim=0) + counts.sum(dim=1) - both)).nanmean()


@torch.no_grad()
def score_images(cfg: Any, checkpoints: Sequence[Path], records: Records, folder: Path) -> dict[str, float]:
    """Score images by the checkpoints of a training; those that cannot be read get none. All processes must call it.

    The processes divide the images. Each writes its scores to a file as it goes on, so that a run that was stopped
    scores no image again.

    Args:
        cfg: of the training; images are segmented as in its evaluation.
        checkpoints: two or more, the last one of the training at the end.
        records: dataset dicts of unlabeled images. No mask is opened.
        folder: for the files, on a disk that all machines share.

    Returns:
        the scores by `image_key`, the same in all processes.
    """
    known = _read_scores(folder)
    comm.synchronize()  # all have read before any writes
    own = [r for r in records[comm.get_rank() :: comm.get_world_size()] if image_key(r) not in known]
    models = [load_model(str(path), device=cfg.MODEL.DEVICE)[0] for path in checkpoints] if own else []
    segments = [build_predict(cfg, model.segment) for model in models]
    file = LineFile(folder / f"image_scores.rank{comm.get_rank()}.jsonl")
    for item in read_images(cfg, own, "image scores"):
        if not isinstance(item["image"], InputError):
            image = item["image"][None].to(models[0].device).float()
            labels = [segment(image)[0].argmax(dim=0) for segment in segments]
            score = image_score(labels, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES).item()
            file.write(json.dumps({"image_id": image_key(item), "score": score}) + "\n")
            file.flush()
    file.close()
    comm.synchronize()
    return _read_scores(folder)


def _read_scores(folder: Path) -> dict[str, float]:
    lines = [line for path in folder.glob("image_scores.rank*.jsonl") for line in read_text(path).splitlines(True)]
    rows = [json.loads(line) for line in lines if line.endswith("\n")]  # a stopped run may have left half a line
    return {row["image_id"]: row["score"] for row in rows}
