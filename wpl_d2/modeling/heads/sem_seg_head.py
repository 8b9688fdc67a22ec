"""DeepLabv3+ that also returns the embedding that its classifier reads, and a representation for contrastive losses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ASPP, Conv2d, DepthwiseSeparableConv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn

from ...structures import SemSegOutput
from ..layers import add_biases, conv_norm_relu, drop_channels, reset_convs, resolve_norm


@SEM_SEG_HEADS_REGISTRY.register()
class EmbeddingDeepLabV3PlusHead(DeepLabV3PlusHead):
    """Detectron2's DeepLabv3+ decoder with its own classifier, whose logits have exactly the size asked for.

    The embedding is the output of the last fuse convolution, after its normalization and ReLU, at the stride
    of the finest feature map: (B, CONVS_DIM, h, w).

    The heads of the published methods: `align_corners`, `aspp_pool_norm` and `init` "pytorch" give UniMatch's; biased
    project convolutions in addition, AugSeg's; biased project and fuse convolutions, `aspp_fuse_kernel` 3 and
    `dropout` 0.1, AEL's; a representation in addition, U2PL's.

    Attributes:
        predictor: 1x1 convolution from the embedding to the logits.
        merged_channels: of `merge`.
        has_representation: whether the decoder has a second output (`RepresentationFork`).
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        align_corners: bool,
        aspp_pool_norm: bool = False,
        aspp_fuse_kernel: int = 1,
        dropout: float = 0.0,
        representation_dim: int = 0,
        biased: Collection[str] = (),
        init: str = "detectron2",
        **decoder: Any,
    ) -> None:
        """Build decoder and classifier.

        Args:
            input_shape: of the feature maps; the one of the largest stride goes into ASPP, the others are skips.
            num_classes: of the segmentation.
            align_corners: for the bilinear resize of ASPP's output and of the logits.
            aspp_pool_norm: whether ASPP's image pooling is normalized like its other branches.
            aspp_fuse_kernel: odd kernel size of the convolution that fuses ASPP's branches.
            dropout: probability of dropping a channel in training: after the convolution that fuses ASPP's branches,
                between the fuse convolutions (unless depthwise separable) and before the classifier.
            representation_dim: length of a pixel's representation, parallel to the embedding; 0 disables it.
            biased: convolutions with a bias in spite of the norm that follows and cancels it: "project", those of the
                skips, and "fuse", which includes the representation's.
            init: initial weights of "detectron2", or of "pytorch", that is of `nn.Conv2d`.
            decoder: the other arguments of `DeepLabV3PlusHead`.
        """
        # The parent's classifier resizes by a factor (321 becomes 324), so the parent builds the decoder only.
        super().__init__(input_shape, num_classes=None, **decoder)
        self.align_corners = align_corners
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        width = decoder["decoder_channels"][0]
        self.predictor = Conv2d(width, num_classes, kernel_size=1)
        self.merged_channels = decoder["project_channels"][0] + decoder["decoder_channels"][1]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)
        finer, coarsest = [self.decoder[name] for name in self.in_features[:-1]], self.decoder[self.in_features[-1]]
        _adapt_aspp(coarsest["project_conv"], decoder["norm"], aspp_pool_norm, aspp_fuse_kernel, dropout)
        for stage in finer:
            if dropout and isinstance(stage["fuse_conv"], nn.Sequential):
                drop_channels(stage["fuse_conv"][0], dropout)
        self.has_representation = representation_dim > 0
        if self.has_representation:
            representation = representation_head(
                in_channels=self.merged_channels,
                channels=width,
                dim=representation_dim,
                norm=decoder["norm"],
                dropout=dropout,
                separable=decoder["use_depthwise_separable_conv"],
            )
            finer[0]["fuse_conv"] = RepresentationFork(finer[0]["fuse_conv"], representation)
        for stage in finer:
            for kind in biased:
                add_biases(stage[f"{kind}_conv"])
        if init == "pytorch":
            reset_convs(self)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of `__init__` by `cfg.MODEL.SEM_SEG_HEAD`."""
        cfg = cfg.clone()
        cfg.defrost()
        # Otherwise the parent ties ASPP's pooling to the crop, and rejects crops that the stride does not divide.
        cfg.INPUT.CROP.ENABLED = False
        head = cfg.MODEL.SEM_SEG_HEAD
        head.NORM = resolve_norm(head.NORM, cfg.MODEL.DEVICE)
        return super().from_config(cfg, input_shape) | {
            "align_corners": head.ALIGN_CORNERS,
            "aspp_pool_norm": head.ASPP_POOL_NORM,
            "aspp_fuse_kernel": head.ASPP_FUSE_KERNEL,
            "dropout": head.DECODER_DROPOUT,
            "representation_dim": head.REPRESENTATION_DIM,
            "biased": head.BIASED_CONVS,
            "init": head.INIT,
        }

    def forward(self, features: dict[str, Tensor], size: Sequence[int]) -> SemSegOutput:
        """Decode feature maps.

        Args:
            features: the backbone's, by name.
            size: (H, W) of the image, and so of the logits.

        Returns:
            logits (B, num_classes, H, W), embedding (B, CONVS_DIM, h, w) and, in training only, the representation
            (B, representation_dim, h, w) or None.
        """
        return self.classify(self.merge(features), size)

    def merge(self, features: dict[str, Tensor]) -> Tensor:
        """What the last fuse convolutions read, (B, D, h, w): the first half of `forward`."""
        finest, *others, coarsest = self.in_features
        decoded = self.decoder[coarsest]["project_conv"](features[coarsest])
        for name in reversed(others):
            decoded = self.decoder[name]["fuse_conv"](self._join(name, features, decoded))
        return self._join(finest, features, decoded)

    def classify(self, merged: Tensor, size: Sequence[int]) -> SemSegOutput:
        """The output for a map of `merge`: the second half of `forward`."""
        decoded = self.decoder[self.in_features[0]]["fuse_conv"](merged)
        embedding, representation = decoded if self.has_representation else (decoded, None)
        logits = self._resize(self.predictor(self.dropout(embedding)), size)
        return SemSegOutput(logits, embedding, representation)

    def _join(self, name: str, features: dict[str, Tensor], decoded: Tensor) -> Tensor:
        skip = self.decoder[name]["project_conv"](features[name])
        return torch.cat([skip, self._resize(decoded, skip.shape[-2:])], dim=1)

    def _resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=self.align_corners)


def _adapt_aspp(aspp: ASPP, norm: str, pool_norm: bool, kernel: int, dropout: float) -> None:
    """Change Detectron2's ASPP, in place, where it has no arguments: see `EmbeddingDeepLabV3PlusHead`."""
    if pool_norm:
        pooling = aspp.convs[-1]
        pooling[1] = conv_norm_relu(pooling[1].in_channels, pooling[1].out_channels, 1, norm)
    if kernel != 1:
        aspp.project = conv_norm_relu(aspp.project.in_channels, aspp.project.out_channels, kernel, norm)
    if dropout:
        drop_channels(aspp.project, dropout)


class RepresentationFork(nn.Module):
    """Replaces a decoder's last fuse convolutions, and computes the representation (U2PL, section 3.2) beside them.

    Detectron2's decoder returns whatever its last fuse convolution returns, so ASPP runs only once.
    """

    def __init__(self, fuse: nn.Module, representation: nn.Module) -> None:
        """Wrap the fuse convolutions.

        Args:
            fuse: the replaced module.
            representation: applied to the same input, in training only.
        """
        super().__init__()
        self.fuse = fuse
        self.representation = representation

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fused features and representation of features (B, D, h, w); None for the latter in evaluation."""
        return self.fuse(features), self.representation(features) if self.training else None


def representation_head(
    in_channels: int, channels: int, dim: int, norm: str, dropout: float = 0.0, separable: bool = False
) -> nn.Sequential:
    """Build U2PL's representation head: two 3x3 convolutions with normalization, ReLU and channel dropout, then a 1x1.

    Args:
        in_channels: of the input.
        channels: of the 3x3 convolutions.
        dim: length of a pixel's representation.
        norm: as for Detectron2's `get_norm`.
        dropout: probability of dropping a channel in training.
        separable: whether the 3x3 convolutions are depthwise separable.
    """
    layers: list[nn.Module] = []
    for width in (in_channels, channels):
        layers.append(_separable(width, channels, norm) if separable else conv_norm_relu(width, channels, 3, norm))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers, Conv2d(channels, dim, kernel_size=1))


def _separable(in_channels: int, channels: int, norm: str) -> nn.Module:
    kinds = {"norm1": norm, "activation1": F.relu, "norm2": norm, "activation2": F.relu}
    return DepthwiseSeparableConv2d(in_channels, channels, kernel_size=3, padding=1, **kinds)
