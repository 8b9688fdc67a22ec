"""AllSpark's decoder: SegFormer's, whose last feature map is rebuilt from the channels of other images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from typing_extensions import override

from .segformer_head import SegFormerHead

_NORM_EPS = 1e-6


class ChannelAttention(nn.Module):
    """Attention between channels, each of which is known by its values at N cells (Wang et al., CVPR 2024).

    Queries, keys and values are linear combinations of the C channels of an image, C for each head. Scores are
    normalized over all pairs of queries and keys, in place of a scale.
    """

    def __init__(self, width: int, heads: int, apart: bool, dropout: float) -> None:
        """Build the projections.

        Args:
            width: number of channels, C.
            heads: number of heads.
            apart: whether a head's queries attend to its own keys alone; else to those of all heads.
            dropout: probability with which attention, and single values of the result, are dropped.
        """
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, heads * width, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * width, width, bias=False)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
        self.groups = heads if apart else 1
        self.dropout = nn.Dropout(dropout)

    def forward(self, channels: Tensor, sources: Tensor, pooled: bool = False) -> Tensor:
        """Rebuild channels (B, C, N) from sources: (B, C, N).

        Args:
            channels: of B images.
            sources: (B, C, N), of each image its own; `pooled`: (S, C, N), all for each image.
            pooled: see `sources`; channels are combined with those of the same image, or class of a memory, alone.
        """
        query = self._rows(self.query, channels)
        key, value = self._rows(self.key, sources), self._rows(self.value, sources)
        if pooled:
            key, value = (rows.transpose(0, 1).flatten(1, 2)[None] for rows in (key, value))
        attention = F.instance_norm(query @ key.mT).softmax(dim=3)
        rebuilt = self.dropout(attention) @ value
        return self.dropout(self.out(rebuilt.permute(0, 3, 2, 1).flatten(2))).mT

    def _rows(self, layer: nn.Module, channels: Tensor) -> Tensor:
        """Channels (B, C, N) by a projection, as rows (B, groups, R, N)."""
        return layer(channels.mT).unflatten(2, (self.groups, -1)).permute(0, 2, 3, 1)


@SEM_SEG_HEADS_REGISTRY.register()
class AllSparkHead(SegFormerHead):
    """The decoder of AllSpark (Wang et al., CVPR 2024): `SegFormerHead` on a last map with other images' channels.

    In training labeled images are rebuilt from channels of unlabeled ones, and unlabeled ones each from its own
    (`rebuild`). By itself the head treats images as labeled ones that are rebuilt each from its own channels, so that
    a prediction does not depend on what else is in its batch.

    Attributes:
        map_in, norm_in: from the last feature map to channels.
        cross: attention of labeled images.
        own: attention of unlabeled images.
        norm_out, map_out: from rebuilt channels to a feature map.
    """

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, heads: int, attention_dropout: float, **head: Any) -> None:
        """Build attention and decoder.

        Args:
            input_shape: of the feature maps, the last one last.
            heads: of both attentions.
            attention_dropout: see `ChannelAttention`.
            head: the other arguments of `SegFormerHead`.
        """
        super().__init__(input_shape, **head)
        width = input_shape[self.in_features[-1]].channels
        self.map_in, self.map_out = (nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU()) for _ in range(2))
        self.norm_in, self.norm_out = (nn.LayerNorm(width, eps=_NORM_EPS) for _ in range(2))
        self.cross = ChannelAttention(width, heads, apart=False, dropout=attention_dropout)
        self.own = ChannelAttention(width, heads, apart=True, dropout=attention_dropout)

    @classmethod
    @override
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """As of `SegFormerHead`; the published settings have the same attention everywhere."""
        return super().from_config(cfg, input_shape) | {"heads": 2, "attention_dropout": 0.1}

    def enter(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The last map by `map_in`, (B, C, h, w), and its normalized channels, (B, C, h * w)."""
        maps = self.map_in(features[self.in_features[-1]])
        return maps, self.norm_in(maps.flatten(2).mT).mT

    def rebuild(self, maps: Tensor, channels: Tensor, sources: Tensor | None = None, labeled: int = 0) -> Tensor:
        """The last map from rebuilt channels: (B, C, h, w).

        Args:
            maps: of `enter`.
            channels: likewise.
            sources: (S, C', N), the channels that labeled images are rebuilt from, all together; None: all images are
                labeled, and each is rebuilt from its own.
            labeled: of the images, the number of labeled ones, which are in front.
        """
        if sources is None:
            rebuilt = self.cross(channels, channels)
        else:
            own = channels[labeled:]
            rebuilt = torch.cat([self.cross(channels[:labeled], sources, pooled=True), self.own(own, own)])
        normalized = self.norm_out((maps.flatten(2) + rebuilt).mT)
        return self.map_out(normalized.mT.reshape(maps.shape))

    @override
    def merge(self, features: dict[str, Tensor], last: Tensor | None = None) -> Tensor:
        """As of `SegFormerHead`; `last` is the rebuilt last map, if it is known already."""
        last = self.rebuild(*self.enter(features)) if last is None else last
        return super().merge(features | {self.in_features[-1]: last})
