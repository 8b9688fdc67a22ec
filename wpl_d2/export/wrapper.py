"""The module that is exported: pixels to logits, at any image size."""

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
    """A `UnifiedSegDet` with its normalization, in operations that tracers support.

    The model's own `segment` and `detect_images` loop over a list of images and move them to a device. Here the batch
    stays one dimension of the graph, which runs on any device.

    Attributes:
        model: without gradients.
    """

    model: UnifiedSegDet

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model, and disable its gradients.

        Args:
            model: of `load_model`.

        Raises:
            InputError: it does not segment.
        """
        super().__init__()
        if not isinstance(model, UnifiedSegDet):
            kind = type(model).__name__
            raise InputError(f"--format: a graph holds a segmentation, which {kind} does not make; use safetensors")
        self.model = model.requires_grad_(False)
        # The wrapper too: an exporter that finds any module in training mode puts all of them into it.
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, channels, H, W), float in 0..255."""
        height, width = images.shape[-2:]
        padded = self._normalize(images)
        logits = self.model.decode(self.model.encode(padded), padded.shape[-2:]).logits
        return logits[..., :height, :width]

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of one image (1, 3, H, W): xyxy (N, 4) in pixels, scores (N,), semantic class ids (N,)."""
        features = self.model.encode(self._normalize(images))
        detections = self.model.detect(features, [(images.shape[-2], images.shape[-1])])[0]
        return detections.boxes, detections.scores, detections.classes

    def sample_images(self) -> Tensor:
        """A batch (2, channels, 97, 131) to trace with.

        Tracers may treat sizes of 1 and equal sizes as constant, and see no resizing of sides that a patch divides.
        """
        return torch.rand(2, len(self.model.pixel_mean), 97, 131) * 255

    def _normalize(self, images: Tensor) -> Tensor:
        normalized = (images - self.model.pixel_mean) / self.model.pixel_std
        divisor = self.model.backbone.size_divisibility
        if divisor <= 1:
            return normalized
        return F.pad(normalized, (0, -images.shape[-1] % divisor, 0, -images.shape[-2] % divisor))


@contextmanager
def integer_padding() -> Iterator[None]:
    """Let timm's "same" padding compute with integers; it rounds floats, which `torch.export` cannot serialize."""
    with mock.patch.object(padding, "get_same_padding", _same_padding):
        yield


def _same_padding(length: int, kernel_size: int, stride: int, dilation: int) -> int:
    reach = (kernel_size - 1) * dilation + 1
    # In this form sizes cancel from layer to layer. Otherwise their expressions grow until reading takes minutes.
    total = ((length + stride - 1) // stride - 1) * stride + reach - length
    return total if reach >= stride else max(total, 0)
