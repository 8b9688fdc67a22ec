"""How alike the cells of an image are, by which logits and labels spread between them: CorrMatch's head."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ...weighting.sampling import at_cells
from ..layers import resolve_norm
from .method_head import METHOD_HEADS_REGISTRY

_MASKED = 1e9
"""Taken off the likeness to cells of padding."""
_ALIGNMENT = 8
"""GPUs' fused attention takes channels by so many."""


class Correlation(NamedTuple):
    """What the cells of B images are compared by.

    Attributes:
        query: (B, C, h, w) float, of the cell that has a map.
        key: (B, C, h, w) float, of the cells on it.
    """

    query: Tensor
    key: Tensor

    def select(self, images: slice) -> Correlation:
        """That of some of the images."""
        return Correlation(self.query[images], self.key[images])


@METHOD_HEADS_REGISTRY.register()
class CorrelationHead(nn.Module):
    """The correlation maps of an image's cells (Sun et al., CVPR 2024), compared in float32.

    A cell's map is softmax(q * k / sqrt(C)) over all cells, q and k being two 1x1 convolutions to C channels, as many
    as there are classes, of a 3x3 convolution of the last feature map. Cells of padding are on no map.

    All maps of an image together are (h * w)^2 numbers, 104 million at a crop of 801 and an output stride of 8. They
    are never made: logits spread by fused attention, in the memory of a few feature maps, and `maps` makes but some.

    Attributes:
        conv: 3x3 convolution, norm and ReLU.
        query, key: 1x1 convolutions.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        channels: int,
        norm: str,
        align_corners: bool,
    ) -> None:
        """Build the layers.

        Args:
            input_shape: of the feature maps, the last one last.
            num_classes: of the segmentation, C.
            channels: of the 3x3 convolution.
            norm: as for Detectron2's `get_norm`.
            align_corners: for the bilinear resize between cells and pixels.
        """
        super().__init__()
        self.in_feature = list(input_shape)[-1]
        self.align_corners = align_corners
        width = input_shape[self.in_feature].channels
        norms = get_norm(norm, channels)
        self.conv = Conv2d(width, channels, 3, padding=1, bias=norms is None, norm=norms, activation=F.relu)
        self.query, self.key = (nn.Conv2d(channels, num_classes, 1) for _ in range(2))

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read MODEL.METHOD_HEAD, and classes, norm and resize from MODEL.SEM_SEG_HEAD."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "num_classes": head.NUM_CLASSES,
            "channels": cfg.MODEL.METHOD_HEAD.CHANNELS,
            "norm": resolve_norm(head.NORM, cfg.MODEL.DEVICE),
            "align_corners": head.ALIGN_CORNERS,
        }

    def forward(self, features: dict[str, Tensor]) -> Correlation:
        """What the cells are compared by, from the backbone's feature maps by name."""
        hidden = self.conv(features[self.in_feature])
        return Correlation(self.query(hidden), self.key(hidden))

    def propagate(self, correlation: Correlation, logits: Tensor, valid: Tensor) -> Tensor:
        """Give each cell the mean of all cells' logits, by its map.

        Args:
            correlation: of the images; it alone gets a gradient.
            logits: (B, C, H, W) float; a cell has what they are resized to.
            valid: (B, H, W) bool, False in padding.

        Returns:
            (B, C, H, W) float32.
        """
        size = correlation.query.shape[-2:]
        # Autocast would round likeness and logits to 8 bits.
        with torch.autocast(valid.device.type, enabled=False):
            cells = self.resize(logits.detach().float(), size)
            query, key, value = (_rows(maps.float()) for maps in (*correlation, cells))
            mask = _MASKED * (at_cells(valid, *size).flatten(1)[:, None, None].float() - 1)
            mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=cells.shape[1] ** -0.5)
            return self.resize(mixed[:, 0, :, : cells.shape[1]].mT.unflatten(2, size), logits.shape[-2:])

    @torch.no_grad()
    def maps(self, correlation: Correlation, cells: Tensor, inside: Tensor) -> Tensor:
        """The maps of some cells, each scaled to 0 where it is lowest and 1 where it is highest.

        Args:
            correlation: of the images.
            cells: (B, N) int64, counted row by row.
            inside: (B, h, w) bool, False in cells of padding, which are 0.

        Returns:
            (B, N, h, w) float32.
        """
        query, key = (maps.float().flatten(2) for maps in correlation)
        query = query.gather(2, cells[:, None].expand(-1, query.shape[1], -1))
        padding = ~inside.flatten(1)[:, None]
        with torch.autocast(inside.device.type, enabled=False):
            score = (query.mT @ key * query.shape[1] ** -0.5).masked_fill(padding, -_MASKED)
        # Of the softmax only what it is divided by is missing.
        alike = (score - score.amax(dim=2, keepdim=True)).exp()
        low = alike.masked_fill(padding, 1.0).amin(dim=2, keepdim=True)
        scaled = (alike - low) / (1 - low).clamp(min=torch.finfo(torch.float32).eps)
        return scaled.masked_fill(padding, 0.0).unflatten(2, inside.shape[-2:])

    def resize(self, maps: Tensor, size: torch.Size) -> Tensor:
        """Resize maps (B, D, ...) between cells and pixels."""
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.align_corners)


def _rows(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as rows (B, 1, h * w, C') of fused attention, with channels of 0 behind their own."""
    return F.pad(maps.flatten(2).mT, (0, -maps.shape[1] % _ALIGNMENT))[:, None]
