"""Class activation maps of an image classifier, smoothed by self-attention: PseudoSeg's second segmenter."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, get_norm
from torch import Tensor, nn

from ...weighting.sampling import at_cells
from ..layers import resolve_norm
from .method_head import METHOD_HEADS_REGISTRY

_MASKED = 1e9
"""Taken off the attention to cells of padding."""


@METHOD_HEADS_REGISTRY.register()
class SelfAttentionCAM(nn.Module):
    """Self-attention Grad-CAM (Zou et al., ICLR 2021, section 3.1), in float32.

    Class 0 is the background. The image has a label of each other class, a linear classifier of the mean over the last
    feature map predicts it, and Grad-CAM of that label is the class's activation map. Cells exchange their maps by the
    attention of a hypercolumn, the last two feature maps. What no class claims is background.

    Grad-CAM weighs a feature map's channels by the mean gradient of the class's logit. Behind a mean and a linear layer
    that gradient is the layer's weights over the number of cells, so that nothing has to be differentiated.

    Attributes:
        classifier: 1x1 convolution to the image's logits.
        query, key: 1x1 convolutions of the hypercolumn.
        project: 1x1 convolution over the classes' maps.
        norm: of its output, as TF-slim's without a scale of its own.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        attention_dim: int,
        norm: str,
        align_corners: bool,
    ) -> None:
        """Build the layers.

        Args:
            input_shape: of the feature maps, the last one last.
            num_classes: of the segmentation, C.
            attention_dim: channels of query and key.
            norm: as for Detectron2's `get_norm`.
            align_corners: for the bilinear resize of the hypercolumn's maps.
        """
        super().__init__()
        self.in_features = list(input_shape)[-2:]
        self.align_corners = align_corners
        widths = [input_shape[name].channels for name in self.in_features]
        self.classifier = nn.Conv2d(widths[-1], num_classes - 1, 1)
        self.query, self.key = (nn.Conv2d(sum(widths), attention_dim, 1, bias=False) for _ in range(2))
        self.project = nn.Conv2d(num_classes, num_classes, 1, bias=False)
        self.norm = _norm(norm, num_classes)
        for conv in (self.query, self.key, self.project):
            nn.init.xavier_uniform_(conv.weight)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read MODEL.METHOD_HEAD, and classes, norm and resize from MODEL.SEM_SEG_HEAD."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "num_classes": head.NUM_CLASSES,
            "attention_dim": cfg.MODEL.METHOD_HEAD.ATTENTION_DIM,
            "norm": resolve_norm(head.NORM, cfg.MODEL.DEVICE),
            "align_corners": head.ALIGN_CORNERS,
        }

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B, C - 1) of which classes, but the background, the images show."""
        return self.classifier(features[self.in_features[-1]].mean(dim=(2, 3), keepdim=True)).flatten(1)

    def forward(self, features: dict[str, Tensor], shown: Tensor, valid: Tensor) -> Tensor:
        """Segment; gradients reach `query`, `key`, `project` and `norm` alone.

        Args:
            features: the backbone's, by name.
            shown: (B, C - 1) bool or float, which classes the images show; others have empty maps.
            valid: (B, H, W) bool, False in padding, with which no cell exchanges anything.

        Returns:
            logits (B, C, h, w) float32, of the last feature map's size.
        """
        maps = [features[name].detach().float() for name in self.in_features]
        size = maps[-1].shape[-2:]
        # Autocast would round the maps to 8 bits.
        with torch.autocast(valid.device.type, enabled=False):
            activation = self._activation(maps[-1], shown)
            column = torch.cat([self._resize(part, size) for part in reversed(maps)], dim=1)
            score = activation + self._exchange(activation, column, at_cells(valid, *size))
            background = 2 - score.amax(dim=1, keepdim=True)
            return self.norm(self.project(torch.cat([background, score], dim=1)))

    @torch.no_grad()
    def _activation(self, feature: Tensor, shown: Tensor) -> Tensor:
        """Each class's activation map (B, C - 1, h, w), between 0 and 1."""
        cells = feature.shape[-2] * feature.shape[-1]
        maps = F.conv2d(feature, self.classifier.weight / cells).relu() * shown[:, :, None, None]
        return maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-5)

    def _exchange(self, activation: Tensor, column: Tensor, valid: Tensor) -> Tensor:
        """The mean of all cells' activation, (B, C - 1, h, w), by each cell's attention to them."""
        query, key, value = (part.flatten(2).mT for part in (self.query(column), self.key(column), activation))
        valid = valid.flatten(1).float()
        mask = _MASKED * (valid[:, :, None] * valid[:, None] - 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.mT.unflatten(2, activation.shape[-2:])

    def _resize(self, maps: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.align_corners)


def _norm(kind: str, channels: int) -> nn.Module:
    # Classes do not divide into Detectron2's 32 groups.
    norm = nn.GroupNorm(1, channels) if kind == "GN" else get_norm(kind, channels)
    if norm is None:
        return nn.Identity()
    norm.weight.requires_grad_(False)
    norm.eps = 1e-3
    return norm
