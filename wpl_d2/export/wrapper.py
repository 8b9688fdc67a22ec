"""The module whose graph is exported: pixels in, logits out, at any image size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import yaml
from timm.layers import padding
from torch import Tensor, nn

from ..modeling import UnifiedSegDet
from ..modeling.model_metadata import ABOUT
from ..utils.errors import InputError


class ExportWrapper(nn.Module):
    """A `UnifiedSegDet` with its normalization, in operations that tracers can follow.

    Unlike the model's own `segment` and `find` it goes over no list of images, so that the batch stays one dimension
    of the graph, and it moves nothing to a device, so that the graph runs on any.

    Attributes:
        model: without gradients.
    """

    model: UnifiedSegDet

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model, which loses its gradients.

        Args:
            model: from `load_model`.

        Raises:
            InputError: it does not segment.
        """
        super().__init__()
        if not isinstance(model, UnifiedSegDet):
            kind = type(model).__name__
            raise InputError(f"--format: a graph holds a segmentation, which {kind} does not make; use safetensors")
        self.model = model.requires_grad_(False)
        # Also of the wrapper: an exporter that finds a part in training mode puts all of it there.
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W), float RGB in 0..255."""
        height, width = images.shape[-2:]
        padded = self._normalize(images)
        logits = self.model.decode(self.model.encode(padded), padded.shape[-2:]).logits
        return logits[..., :height, :width]

    def find(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of one image (1, 3, H, W): xyxy (N, 4) in pixels, scores (N,), semantic class ids (N,)."""
        features = self.model.encode(self._normalize(images))
        found = self.model.detect(features, [(images.shape[-2], images.shape[-1])])[0]
        return found.boxes, found.scores, found.classes

    def _normalize(self, images: Tensor) -> Tensor:
        normalized = (images - self.model.pixel_mean) / self.model.pixel_std
        divisor = self.model.backbone.size_divisibility
        if divisor <= 1:
            return normalized
        return F.pad(normalized, (0, -images.shape[-1] % divisor, 0, -images.shape[-2] % divisor))


def sample_images() -> Tensor:
    """A batch (2, 3, 96, 128) to trace with, of no size that a tracer could take for a rule: not 1, not square."""
    return torch.rand(2, 3, 96, 128) * 255


@contextmanager
def integer_padding() -> Iterator[None]:
    """Let timm's "same" padding reckon in integers: it rounds a float up, which `torch.export` cannot write."""
    with mock.patch.object(padding, "get_same_padding", _same_padding):
        yield


def _same_padding(length: int, kernel_size: int, stride: int, dilation: int) -> int:
    reach = (kernel_size - 1) * dilation + 1
    # In this form the sizes of one layer cancel in the next one's; else they grow until reading a file takes minutes.
    total = ((length + stride - 1) // stride - 1) * stride + reach - length
    return total if reach >= stride else max(total, 0)


def about_to_texts(about: Mapping[str, Any], min_size: int = 1) -> dict[str, str]:
    """One JSON text for each key.

    Args:
        about: as `describe_run` has it.
        min_size: the fewest pixels a side of images that the file takes.

    Returns:
        "config" (the YAML text), "classes" (names by class id), "colors" ([r, g, b] by class id), "objects" (class
        ids that have boxes), "preprocessing" (which the graph does itself: "format", "mean", "std") and "min_size".
    """
    return {**{key: json.dumps(about[key]) for key in ABOUT}, "min_size": json.dumps(min_size)}


def about_from_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The inverse of `about_to_texts`.

    Args:
        texts: perhaps with others among them.
        path: the file, for messages.

    Raises:
        InputError: the file does not say what it is.
    """
    if not all(texts.get(key) for key in ABOUT):
        raise InputError(f"{path}: does not name its classes; give a file that tools/export_model.py wrote")
    try:
        about = {key: json.loads(texts[key]) for key in ABOUT}
        known = range(len(about["classes"]))
        fits = len(about["colors"]) == len(known) and all(index in known for index in about["objects"])
        fits = fits and isinstance(yaml.safe_load(about["config"]), dict)
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        fits = False
    if not fits:
        raise InputError(f"{path}: what it says of its classes and config cannot be read; export it anew")
    return about
