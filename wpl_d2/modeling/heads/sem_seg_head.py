"""DeepLabv3+ that also returns the embedding its classifier sees."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ASPP, Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn

from ...structures import SemSegOutput
from ..layers import add_biases, conv_norm_relu, drop_channels, reset_convs, resolve_norm
from .representation import RepresentationFork, representation_head


@SEM_SEG_HEADS_REGISTRY.register()
class EmbeddingDeepLabV3PlusHead(DeepLabV3PlusHead):
    """Detectron2's DeepLabv3+ decoder with a classifier of its own, exact about the size of its logits.

    The embedding is the output of the last fuse convolution, after its normalization and ReLU, at the stride
    of the finest feature map: (B, CONVS_DIM, h, w).

    With `align_corners`, `aspp_pool_norm` and the initial weights "pytorch" it is UniMatch's head; with biases of the
    project convolutions too, AugSeg's; with biases of project and fuse convolutions, an `aspp_fuse_kernel` of 3 and a
    `dropout` of 0.1, AEL's, and with a representation U2PL's.

    Attributes:
        predictor: 1x1 convolution from the embedding to the logits.
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
            input_shape: of the feature maps; that of the largest stride goes into ASPP, the others are skips.
            num_classes: of the segmentation.
            align_corners: of the bilinear resize of ASPP's output and of the logits.
            aspp_pool_norm: whether ASPP's image pooling is normalized as its other branches are.
            aspp_fuse_kernel: odd, kernel size of the convolution that fuses ASPP's branches.
            dropout: probability of a channel to be dropped, in training, behind the convolution that fuses ASPP's
                branches, between the fuse convolutions (but depthwise separable ones) and before the classifier.
            representation_dim: length of the pixels' representation, parallel to the embedding; 0: there is none.
            biased: which convolutions have a bias although a norm follows, which cancels it: "project", those of the
                skips, and "fuse", which includes the representation's.
            init: "detectron2": Detectron2's initial weights; "pytorch": those that `nn.Conv2d` has by itself.
            decoder: the other arguments of `DeepLabV3PlusHead`.
        """
        # The parent's classifier resizes by a factor (321 becomes 324): it builds the decoder alone.
        super().__init__(input_shape, num_classes=None, **decoder)
        self.align_corners = align_corners
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        width = decoder["decoder_channels"][0]
        self.predictor = Conv2d(width, num_classes, kernel_size=1)
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
                in_channels=decoder["project_channels"][0] + decoder["decoder_channels"][1],
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
        # Else the parent ties ASPP's pooling to the crop and refuses crops that the stride does not divide.
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
            features: of the backbone, by name.
            size: (H, W) of the logits wanted, that is of the image.

        Returns:
            logits (B, num_classes, H, W), the embedding (B, CONVS_DIM, h, w) and, in training and if there is one,
            the representation (B, representation_dim, h, w).
        """
        decoded = self.layers(features)
        embedding, representation = decoded if self.has_representation else (decoded, None)
        logits = self._resize(self.predictor(self.dropout(embedding)), size)
        return SemSegOutput(logits, embedding, representation)

    def layers(self, features: dict[str, Tensor]) -> Any:
        """What the last fuse convolution returns, as in the parent, whose resize never aligns corners."""
        *finer, coarsest = self.in_features
        decoded = self.decoder[coarsest]["project_conv"](features[coarsest])
        for name in reversed(finer):
            skip = self.decoder[name]["project_conv"](features[name])
            decoded = torch.cat([skip, self._resize(decoded, skip.shape[-2:])], dim=1)
            decoded = self.decoder[name]["fuse_conv"](decoded)
        return decoded

    def _resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=self.align_corners)


def _adapt_aspp(aspp: ASPP, norm: str, pool_norm: bool, kernel: int, dropout: float) -> None:
    """Give Detectron2's ASPP, in place, what it has no arguments for: see `EmbeddingDeepLabV3PlusHead`."""
    if pool_norm:
        pooling = aspp.convs[-1]
        pooling[1] = conv_norm_relu(pooling[1].in_channels, pooling[1].out_channels, 1, norm)
    if kernel != 1:
        aspp.project = conv_norm_relu(aspp.project.in_channels, aspp.project.out_channels, kernel, norm)
    if dropout:
        drop_channels(aspp.project, dropout)
