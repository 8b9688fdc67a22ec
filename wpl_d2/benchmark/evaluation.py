"""The segmentation metric of one image, beside Detectron2's `SemSegEvaluator` on the same predictions."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torch import Tensor

from ..data import EvalDataset, read_mask
from ..evaluation import SemSegConfusionEvaluator
from ..evaluation.evaluator import build_detectron2_evaluator
from ..structures import IGNORE
from ..utils.cpu_speed import label_map

_DATASET = "benchmark_evaluation"


def compare_evaluators(classes: int, height: int, width: int, rounds: int, device: str) -> dict[str, float]:
    """Milliseconds of both evaluators and of what they consist of, which take turns; the mean IoU must be the same.

    Args:
        classes: of the segmentation.
        height: of the image.
        width: of the image.
        rounds: measured turns of each.
        device: where the predictions are.
    """
    with tempfile.TemporaryDirectory() as folder:
        item, scores = _make_image(Path(folder), classes, height, width)
        dataset = EvalDataset(name=_DATASET)
        outputs = [{"sem_seg": scores.to(device)}]
        evaluators = {
            "own": SemSegConfusionEvaluator(dataset),
            "detectron2": build_detectron2_evaluator(dataset, Path(folder) / "detectron2"),
        }
        calls: dict[str, Callable[[], Any]] = {
            "own": lambda: evaluators["own"].process([item], outputs),
            "detectron2": lambda: evaluators["detectron2"].process([item], outputs),
            "own_argmax": lambda: label_map(outputs[0]["sem_seg"]),
            "detectron2_argmax": lambda: outputs[0]["sem_seg"].argmax(dim=0),
            "mask_reading": lambda: read_mask(item["sem_seg_file_name"]),
        }
        for evaluator in evaluators.values():
            evaluator.reset()
        seconds = take_turns(calls, rounds, device)
        own, theirs = (evaluator.evaluate()["sem_seg"]["mIoU"] for evaluator in evaluators.values())
    ratio, cpu_ratio = (ours / other for ours, other in zip(seconds["own"], seconds["detectron2"], strict=True))
    result = {f"{name}_ms": round(1000 * elapsed, 2) for name, (elapsed, _) in seconds.items()}
    return result | {"ratio": round(ratio, 4), "cpu_ratio": round(cpu_ratio, 4), "miou_difference": abs(own - theirs)}


def _make_image(folder: Path, classes: int, height: int, width: int) -> tuple[dict[str, Any], Tensor]:
    """A registered data set of one mask of smooth regions, void at its left, and scores (C, H, W) that nearly fit."""
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(1, classes, height // 64 + 2, width // 64 + 2, generator=generator)
    scores = torch.nn.functional.interpolate(field, (height, width), mode="bicubic")[0]
    mask = scores.argmax(dim=0)
    mask[:, : width // 20] = IGNORE
    item = {"file_name": str(folder / "image.png"), "sem_seg_file_name": str(folder / "mask.png")}
    Image.fromarray(mask.numpy().astype(np.uint8)).save(item["sem_seg_file_name"])
    DatasetCatalog.register(_DATASET, lambda: [item])
    names = [f"class {number}" for number in range(classes)]
    MetadataCatalog.get(_DATASET).set(stuff_classes=names, ignore_label=IGNORE, mask_ignore=IGNORE)
    return item, scores + 0.2 * torch.randn(scores.shape, generator=generator)


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, tuple[float, float]]:
    """Median seconds of each call, elapsed and of CPU time; the first round is a warm-up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    medians = {}
    for name, values in times.items():
        elapsed, cpu = zip(*values[1:], strict=True)
        medians[name] = (statistics.median(elapsed), statistics.median(cpu))
    return medians
