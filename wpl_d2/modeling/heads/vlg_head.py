"""SemiVL's vision-language-guided decoder: from the similarity of images and class names to masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ...structures import SemSegOutput
from ...utils.errors import InputError
from ..backbone.vit import at_least_one

_CHANNELS_OF_GROUP = 16  # of GN
_WIDTHS = 64  # the narrowest maps have a quarter of the width, and one group at least
_POOL, _HEADS = 4, 4
_SCALE = 100.0
"""By which CLIP multiplies cosines before its softmax."""


@SEM_SEG_HEADS_REGISTRY.register()
class VLGHead(nn.Module):
    """The vision-language-guided decoder of SemiVL (Hoyer et al., ECCV 2024), which treats all classes alike.

    For each class the map of cosines between the image's embeddings and the class's text goes through one 7x7
    convolution and ASPP; then classes attend to each other, cell by cell, beside their texts; and two stages double the
    maps' size, each with a skip. The embedding is CLIP's of the image, before the cosines: (B, dim, h, w).

    Texts come from a text encoder (`wpl_d2.modeling.text_embeddings`) once. They are buffers, so that a checkpoint or
    an export needs none. Until they are set they are random.

    Attributes:
        texts: (C, dim) float32 of length 1, one for each class.
        concepts: (N, dim) float32 of length 1, several for each class, for `clip_logits`.
        concept_classes: (N,) int64.
    """

    texts: Tensor
    concepts: Tensor
    concept_classes: Tensor

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_concepts: Sequence[int],
        dim: int,
        width: int,
        dilations: Sequence[int],
        skips: Sequence[int],
    ) -> None:
        """Build the decoder.

        Args:
            input_shape: of two skips, the finer one first, and of CLIP's embeddings.
            num_concepts: of each class.
            dim: length of an embedding.
            width: channels of a class's maps before their size is doubled.
            dilations: of ASPP.
            skips: channels of each skip in the decoder, the coarser one first.

        Raises:
            InputError: the backbone has no such maps, or a width cannot be divided.
        """
        super().__init__()
        self.in_features = list(input_shape)
        *finer, image = input_shape.values()
        if len(finer) != 2 or image.channels != dim:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.NAME: VLGHead reads two skips and embeddings of {dim} channels "
                "(MODEL.SEM_SEG_HEAD.CONVS_DIM); set MODEL.BACKBONE.NAME build_maskclip_backbone and "
                "MODEL.MASKCLIP.DIM to that number"
            )
        if width % _WIDTHS or len(skips) != 2:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.ASPP_CHANNELS: {width} and PROJECT_CHANNELS {tuple(skips)}; VLGHead needs a "
                f"multiple of {_WIDTHS}, such as 128, and two numbers, such as (32, 16)"
            )
        self.similarity = nn.Conv2d(1, width, 7, padding=3)
        self.aspp = _ASPP(width, dilations)
        self.text_project = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.attentions = nn.ModuleList(_ClassAttention(width) for _ in range(2))
        self.skip_projects = nn.ModuleList(
            nn.Sequential(nn.Conv2d(shape.channels, own, 3, padding=1), nn.ReLU())
            for shape, own in zip(reversed(finer), skips, strict=True)
        )
        self.ups = nn.ModuleList((_Up(width, width // 2, skips[0]), _Up(width // 2, width // 4, skips[1])))
        self.mask = nn.Conv2d(width // 4, 1, 3, padding=1)
        classes = [number for number, count in enumerate(num_concepts) for _ in range(count)]
        self.register_buffer("texts", _random_texts(len(num_concepts), dim))
        self.register_buffer("concepts", _random_texts(len(classes), dim))
        self.register_buffer("concept_classes", torch.tensor(classes), persistent=False)
        self.has_representation = False

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of `__init__` by MODEL.SEM_SEG_HEAD and MODEL.VLG."""
        head, vlg = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.VLG
        for key, phrases in (("TEXTS", vlg.TEXTS), ("CONCEPTS", vlg.CONCEPTS)):
            if len(phrases) not in (0, head.NUM_CLASSES):
                raise InputError(
                    f"MODEL.VLG.{key}: phrases of {len(phrases)} classes, and there are {head.NUM_CLASSES}; give a "
                    "list for each class in the order of the data set, or none"
                )
        return {
            "input_shape": input_shape,
            "num_concepts": [len(own) for own in vlg.CONCEPTS or vlg.TEXTS] or [1] * head.NUM_CLASSES,
            "dim": head.CONVS_DIM,
            "width": head.ASPP_CHANNELS,
            "dilations": head.ASPP_DILATIONS,
            "skips": head.PROJECT_CHANNELS,
        }

    def forward(self, features: dict[str, Tensor], size: Sequence[int]) -> SemSegOutput:
        """Decode the maps, by name, to logits (B, C, *size) and the embedding."""
        *skips, image = (features[name] for name in self.in_features)
        cosines = torch.einsum("bdhw,cd->bchw", F.normalize(image, dim=1), self.texts)
        maps = self.aspp(self.similarity(cosines.flatten(0, 1).unsqueeze(1)))
        texts = self.text_project(self.texts)
        for attention in self.attentions:
            maps = attention(maps, texts)
        for up, project, skip in zip(self.ups, self.skip_projects, reversed(skips), strict=True):
            maps = up(maps, project(skip))
        logits = self.mask(maps).squeeze(1).unflatten(0, cosines.shape[:2])
        return SemSegOutput(F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False), image)

    def clip_logits(self, embedding: Tensor, size: Sequence[int]) -> Tensor:
        """What CLIP by itself says: for each class the most similar concept.

        Args:
            embedding: (B, dim, h, w) float of length 1, such as "res5" of a `MaskCLIPBackbone`.
            size: (H, W).

        Returns:
            (B, C, *size) float32, 100 times cosines.
        """
        with torch.autocast(embedding.device.type, enabled=False):  # which would round cosines to 8 bits
            cosines = torch.einsum("bdhw,nd->bnhw", embedding.float(), self.concepts)
            of_concepts = self.concept_classes.view(1, -1, 1, 1).expand_as(cosines)
            best = cosines.new_full((len(cosines), len(self.texts), *cosines.shape[2:]), -1.0)
            best = best.scatter_reduce(1, of_concepts, cosines, "amax")
            return _SCALE * F.interpolate(best, tuple(size), mode="bilinear", align_corners=False)


def _random_texts(count: int, dim: int) -> Tensor:
    """Random embeddings (N, D) of length 1, the same in every process: DDP makes weights equal, but not buffers."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(count, dim, generator=generator, device="cpu"))


def _conv(in_channels: int, channels: int, kernel_size: int = 3, dilation: int = 1) -> nn.Sequential:
    """A size-preserving convolution with GN and ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.GroupNorm(channels // _CHANNELS_OF_GROUP, channels),
        nn.ReLU(),
    )


class _ASPP(nn.Module):
    """Atrous spatial pyramid pooling beside a shortcut."""

    def __init__(self, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, width, 3, dilation) for dilation in dilations)
        self.convs.insert(0, _conv(width, width, 1))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv(width, width, 1))
        self.project = _conv((len(dilations) + 2) * width, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        found = [*(conv(maps) for conv in self.convs), self.pool(maps).expand_as(maps)]
        return maps + self.project(torch.cat(found, dim=1))


class _ClassAttention(nn.Module):
    """Attention between the classes of each cell of a pooled map, beside a shortcut of the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transformer = nn.TransformerEncoderLayer(
            2 * width, _HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, maps: Tensor, texts: Tensor) -> Tensor:
        """Maps (B * C, W, h, w) and texts (C, W)."""
        (height, width), (classes, channels) = maps.shape[-2:], texts.shape
        rows, columns = (at_least_one(side // _POOL) for side in (height, width))
        # Cells that are not full are left out, unless there is no other.
        pooled = F.avg_pool2d(maps, _POOL, ceil_mode=True)[..., :rows, :columns]
        cells = pooled.unflatten(0, (-1, classes)).permute(0, 3, 4, 1, 2)  # (B, h', w', C, W)
        tokens = cells.flatten(0, 2)
        tokens = torch.cat([tokens, texts.expand(tokens.shape[0], -1, -1)], dim=-1)
        found = self.transformer(tokens)[..., :channels].view(cells.shape).permute(0, 3, 4, 1, 2).flatten(0, 1)
        return maps + F.interpolate(found, (height, width), mode="bilinear", align_corners=True)


class _Up(nn.Module):
    """Doubles the size of all classes' maps, with a skip that they share."""

    def __init__(self, in_channels: int, channels: int, skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels - skip, 2, stride=2)
        self.convs = nn.Sequential(_conv(in_channels, channels), _conv(channels, channels))

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Maps (B * C, W, h, w) and a skip (B, S, h', w')."""
        maps = self.up(maps)
        skip = F.interpolate(skip, maps.shape[-2:], mode="bilinear", align_corners=True)
        return self.convs(torch.cat([maps, skip.repeat_interleave(maps.shape[0] // skip.shape[0], dim=0)], dim=1))
