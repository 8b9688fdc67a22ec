"""DeepLabv3+ that also returns the embedding its classifier sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn

from ..structures import SemSegOutput
from .norm import resolve_norm
from .representation import RepresentationFork, representation_head


@SEM_SEG_HEADS_REGISTRY.register()
class EmbeddingDeepLabV3PlusHead(DeepLabV3PlusHead):
    """Detectron2's DeepLabv3+ decoder with a classifier of its own, exact about the size of its logits.

    The embedding is the output of the last fuse convolution, after its normalization and ReLU, at the stride
    of the finest feature map: (B, CONVS_DIM, h, w).

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
        embedding_dropout: float = 0.0,
        representation_dim: int = 0,
        **decoder: Any,
    ) -> None:
        """Build decoder and classifier.

        Args:
            input_shape: of the feature maps; that of the largest stride goes into ASPP, the others are skips.
            num_classes: of the segmentation.
            align_corners: of the bilinear resize of the logits.
            embedding_dropout: probability of a channel to be dropped, in training, on its way to the classifier.
            representation_dim: length of the pixels' representation, parallel to the embedding; 0: there is none.
            decoder: the other arguments of `DeepLabV3PlusHead`.
        """
        # The parent's classifier resizes by a factor (321 becomes 324): it builds the decoder alone.
        super().__init__(input_shape, num_classes=None, **decoder)
        self.align_corners = align_corners
        self.dropout = nn.Dropout2d(embedding_dropout) if embedding_dropout else nn.Identity()
        width = decoder["decoder_channels"][0]
        self.predictor = Conv2d(width, num_classes, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)
        self.has_representation = representation_dim > 0
        if self.has_representation:
            finest = self.decoder[self.in_features[0]]
            finest["fuse_conv"] = RepresentationFork(
                finest["fuse_conv"],
                representation_head(
                    in_channels=decoder["project_channels"][0] + decoder["decoder_channels"][1],
                    channels=width,
                    dim=representation_dim,
                    norm=decoder["norm"],
                    dropout=embedding_dropout,
                    separable=decoder["use_depthwise_separable_conv"],
                ),
            )

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that `cfg.MODEL.SEM_SEG_HEAD` stands for."""
        cfg = cfg.clone()
        cfg.defrost()
        # Else the parent ties ASPP's pooling to the crop and refuses crops that the stride does not divide.
        cfg.INPUT.CROP.ENABLED = False
        head = cfg.MODEL.SEM_SEG_HEAD
        head.NORM = resolve_norm(head.NORM, cfg.MODEL.DEVICE)
        return super().from_config(cfg, input_shape) | {
            "align_corners": head.ALIGN_CORNERS,
            "embedding_dropout": head.EMBEDDING_DROPOUT,
            "representation_dim": head.REPRESENTATION_DIM,
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
        logits = self.predictor(self.dropout(embedding))
        logits = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=self.align_corners)
        return SemSegOutput(logits, embedding, representation)
