#!/usr/bin/env python
"""What the segmentation metric of one image costs, beside Detectron2's `SemSegEvaluator` on the same predictions.

`tools/benchmark_evaluation.py [--height 1024 --width 2048 --classes 19]`; the last line is one JSON object. Both
evaluators take turns in one process, and each reads the mask from its PNG file. The network is not part of it, nor are
the numbers at the end of a data set and the files that `SemSegEvaluator` then writes. `ratio` is of the elapsed time,
`cpu_ratio` of the CPU time of all threads, which other programs on the machine hardly disturb.
"""

import argparse
import json
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

from wpl_d2.config.validation import check_device
from wpl_d2.data import EvalDataset, read_mask
from wpl_d2.evaluation import SemSegConfusionEvaluator
from wpl_d2.evaluation.evaluator import build_detectron2_evaluator
from wpl_d2.structures import IGNORE
from wpl_d2.utils.command_line import positive_int
from wpl_d2.utils.cpu_speed import label_map
from wpl_d2.utils.errors import InputError, clear_errors

DATASET = "benchmark_evaluation"


def main(args: argparse.Namespace) -> None:
    if not 2 <= args.classes < IGNORE:
        raise InputError(f"--classes: {args.classes}; take 2 to {IGNORE - 1}")
    check_device("--device", args.device)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        item, scores = make_image(Path(folder), args.classes, args.height, args.width)
        dataset = EvalDataset(name=DATASET)
        outputs = [{"sem_seg": scores.to(args.device)}]
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
        seconds = take_turns(calls, args.rounds, args.device)
        own, theirs = (evaluator.evaluate()["sem_seg"]["mIoU"] for evaluator in evaluators.values())
    result = {key: getattr(args, key) for key in ("height", "width", "classes", "rounds", "threads", "device")}
    result |= {f"{name}_ms": round(1000 * elapsed, 2) for name, (elapsed, _) in seconds.items()}
    ratio, cpu_ratio = (ours / other for ours, other in zip(seconds["own"], seconds["detectron2"], strict=True))
    result |= {"ratio": round(ratio, 4), "cpu_ratio": round(cpu_ratio, 4), "miou_difference": abs(own - theirs)}
    print(json.dumps(result))


def make_image(folder: Path, classes: int, height: int, width: int) -> tuple[dict[str, Any], Tensor]:
    """A registered data set of one mask of smooth regions, void at its left, and scores (C, H, W) that nearly fit."""
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(1, classes, height // 64 + 2, width // 64 + 2, generator=generator)
    scores = torch.nn.functional.interpolate(field, (height, width), mode="bicubic")[0]
    mask = scores.argmax(dim=0)
    mask[:, : width // 20] = IGNORE
    item = {"file_name": str(folder / "image.png"), "sem_seg_file_name": str(folder / "mask.png")}
    Image.fromarray(mask.numpy().astype(np.uint8)).save(item["sem_seg_file_name"])
    DatasetCatalog.register(DATASET, lambda: [item])
    names = [f"class {number}" for number in range(classes)]
    MetadataCatalog.get(DATASET).set(stuff_classes=names, ignore_label=IGNORE, mask_ignore=IGNORE)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--height", type=positive_int, default=1024, help="of the image")
    parser.add_argument("--width", type=positive_int, default=2048, help="of the image")
    parser.add_argument("--classes", type=int, default=19, help="of the segmentation")
    parser.add_argument("--rounds", type=positive_int, default=7, help="measured turns of each")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="cpu", help="where the predictions are: cpu or cuda")
    with clear_errors():
        main(parser.parse_args())
