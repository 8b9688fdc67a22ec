"""Exporting a checkpoint to another format, verified against the model."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from torch import Tensor

from ..checkpoint import load_model
from ..data import setup_datasets
from ..data.image_io import read_record
from ..data.pixel_values import PixelLayout
from ..inference.runtime_model import build_runtime_model
from ..inference.sources import list_images
from ..utils.errors import InputError, check_name
from ..utils.files import clear_write_errors
from .formats import FORMATS
from .verify import Agreement, compare

_COMPARED = 2
"""Number of images to compare on, each at several sizes."""


def export_model(
    weights: str, format_name: str, output: str | Path, images: str = "", which: str = "", boxes: bool = False
) -> Agreement:
    """Export a model, read the file back, and compare the two; a file that differs is not kept.

    Args:
        weights: a checkpoint, or a `.safetensors` export.
        format_name: one of `FORMATS`.
        output: the file, with the format's suffix.
        images: folder or pattern of images, the first of which are compared on; by default those of the training's
            DATASETS.TEST.
        which: "teacher" or "student"; by default the teacher if there is one.
        boxes: whether to include the detector (always in a `.safetensors`).

    Raises:
        InputError: the format does not support what is asked for, or the outputs differ.
    """
    chosen = FORMATS[check_name("--format", format_name, FORMATS)]
    output = Path(output)
    if output.suffix != chosen.suffix:
        raise InputError(f"--output: {output} does not end in {chosen.suffix}, by which {format_name} files are known")
    model, metadata = load_model(weights, which)
    reference = build_runtime_model(model, metadata)
    if boxes and not chosen.supports_boxes:
        holders = " or ".join(name for name, other in FORMATS.items() if other.supports_boxes)
        raise InputError(f"--boxes: {format_name} holds the segmentation alone; use {holders}")
    if boxes and reference.detect is None:
        raise InputError(f"--boxes: {weights} has no detector; leave it out")
    compared = _images(images, metadata["config"])
    with clear_write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=output.parent) as folder, warnings.catch_warnings():
            # Tracers warn of values that they treat as constant; the comparison shows whether it matters.
            warnings.simplefilter("ignore")
            partial = Path(folder) / output.name
            chosen.write(model, reference.metadata, partial, boxes)
            agreement = compare(reference, chosen.read(partial, "cpu"), compared)
            if not agreement.within_limits:
                raise InputError(f"{output}: was not written, the export differs ({agreement}); try another --format")
            os.replace(partial, output)
    return agreement


def _images(name: str, cfg: Any) -> list[Tensor]:
    """Images (C, H, W) in 0..255 to compare on."""
    layout = PixelLayout.from_config(cfg)
    if name:
        records = [{"file_name": file, "layout": layout} for file in list_images(name).files]
    else:
        records = _test_images(cfg.clone())
    if not records:
        raise InputError(f"--images: no images in {name or 'the training test set'}; name a folder or a pattern")
    return [torch.from_numpy(read_record(record).copy()).permute(2, 0, 1) for record in records[:_COMPARED]]


def _test_images(cfg: Any) -> list[dict[str, Any]]:
    try:
        setup_datasets(cfg)
        return [record for name in cfg.DATASETS.TEST[:1] for record in DatasetCatalog.get(name)]
    except InputError as error:
        raise InputError(f"--images: name some to compare on, those of the training are not there ({error})") from error
