"""The module whose graph is exported: pixels in, logits out, at any image size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from timm.layers import padding
from torch import Tensor, nn

from ..modeling import UnifiedSegDet
from ..utils.errors import InputError


class ExportWrapper(nn.Module):
    """A `UnifiedSegDet` with its normalization, in operations that tracers can follow.

    The model's own `segment` and `detect_images` loop over a list of images and move them to a device. Here the batch
    stays one dimension of the graph, which runs on any device.

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

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
