"""What predicting a folder, and an evaluation, take beside the bare network, and how soon the former begins."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_on_dataset
from PIL import Image
from torch import Tensor

from .. import build_model
from ..checkpoint.metadata import build_metadata
from ..data import EvalDataset
from ..data.pixel_values import PixelLayout
from ..evaluation.evaluator import build_evaluator
from ..inference import PredictionWriter, Predictor, predict
from ..inference.build import build_inference
from ..inference.predictor import batches
from ..inference.runtime_model import build_runtime_model
from ..inference.sources import Frame, ImageFiles, Listing
from ..utils.errors import InputError

_ROUNDS, _BATCH = 5, 4
_PYTORCH = "import torch, time; print(time.process_time())"
_READ = """
import sys, time
from wpl_d2.export import open_model
from wpl_d2.inference import PredictionWriter, Predictor, open_source, predict
next(iter(open_source(sys.argv[1])))
print(time.process_time())
"""


def compare_prediction(cfg: CfgNode, images: int) -> dict[str, float]:
    """Seconds an image of `predict`, from file to files, and of the network alone on images in memory.

    Args:
        cfg: complete, with its data sets registered; the weights are random.
        images: how many of DATASETS.TEST are predicted, in each of five rounds, in which both take turns.

    Returns:
        `predict_image_s`, `network_image_s` and `predict_to_network`, of elapsed time; `predict_to_network_cpu` is of
        the CPU time of all threads, which other programs hardly disturb.

    Raises:
        InputError: DATASETS.TEST is empty.
    """
    files = [Path(record["file_name"]).absolute() for record in _images(cfg, images).records]
    root = Path(os.path.commonpath([file.parent for file in files]))
    source = ImageFiles(Listing(files, root, Counter()), PixelLayout.from_config(cfg))
    model = build_runtime_model(build_model(cfg).eval(), {**build_metadata(cfg), "config": cfg})
    predictor = Predictor(model, cfg.MODEL.DEVICE)
    in_memory = [_to_tensor(batch).to(predictor.device) for batch in batches(source, _BATCH)]

    @torch.inference_mode()
    def network() -> None:
        for batch in in_memory:
            for run in filter(None, (predictor.segment, predictor.detect)):
                run(batch)
        if predictor.device != "cpu":
            torch.cuda.synchronize()

    def whole() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
            PredictionWriter(Path(folder), model.metadata, model.detect is not None, source) as writer,
        ):
            predict(source, predictor, writer, _BATCH)

    return _compare("predict", whole, network, len(source))


def compare_evaluation(cfg: CfgNode, images: int) -> dict[str, float]:
    """Seconds an image of an evaluation, from files to metrics, and of the network alone on images in memory.

    Args:
        cfg: complete, with its data sets registered; the weights are random. With DATALOADER.NUM_WORKERS 0 the CPU time
            is that of all that is done.
        images: how many of DATASETS.TEST are evaluated, in each of five rounds, in which both take turns.

    Returns:
        as of `compare_prediction`, under the name "evaluate".

    Raises:
        InputError: DATASETS.TEST is empty.
    """
    dataset, model = _images(cfg, images), build_model(cfg).eval()
    inference, in_memory = build_inference(cfg, model), [item["image"][None] for (item,) in dataset.loader()]

    @torch.no_grad()
    def network() -> None:
        for image in in_memory:
            model.segment(image)
        if cfg.MODEL.DEVICE != "cpu":
            torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        evaluator = build_evaluator(cfg, dataset, folder)
        return _compare(
            "evaluate",
            lambda: inference_on_dataset(inference, dataset.loader(), evaluator),
            network,
            len(in_memory),
        )


def _images(cfg: CfgNode, count: int) -> EvalDataset:
    """The first images of DATASETS.TEST."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST: names no list; name one of images to predict")
    dataset = EvalDataset(cfg, name=cfg.DATASETS.TEST[0])
    dataset.records = dataset.records[:count]
    return dataset


def _compare(name: str, whole: Callable[[], Any], network: Callable[[], None], count: int) -> dict[str, float]:
    times = [(_seconds(network), _seconds(whole)) for _ in range(_ROUNDS + 1)][1:]
    ratios = [[ours / bare for bare, ours in zip(*pair, strict=True)] for pair in times]
    return {
        f"{name}_image_s": statistics.median(whole[0] for _, whole in times) / count,
        "network_image_s": statistics.median(network[0] for network, _ in times) / count,
        f"{name}_to_network": statistics.median(elapsed for elapsed, _ in ratios),
        f"{name}_to_network_cpu": statistics.median(cpu for _, cpu in ratios),
    }


def measure_start() -> dict[str, float]:
    """Seconds of CPU until PyTorch is imported, and until `wpl predict` could read its first image."""
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (64, 64)).save(Path(folder) / "image.png")
        pytorch, read = (_printed_by(code, folder) for code in (_PYTORCH, _READ))
    return {"import_torch_s": pytorch, "first_image_s": read, "first_image_after_torch_s": read - pytorch}


def _to_tensor(batch: Sequence[Frame]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(frame.image) for frame in batch])).permute(0, 3, 1, 2).float()


def _seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Elapsed, and of CPU time."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu


def _printed_by(code: str, *args: str) -> float:
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)
