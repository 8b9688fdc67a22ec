"""The paper's detector: a Faster R-CNN of its own, on a feature pyramid."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_proposal_generator, build_roi_heads
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.meta_arch import GeneralizedRCNN
from torch import Tensor

from ..errors import InputError
from .detector import with_object_classes
from .metadata import name_classes
from .norm import resolve_norm
from .weights import OwnWeights


class _Pyramid(FPN):
    """Detectron2's, with features in float32: boxes get their type, and bfloat16 would move corners by pixels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: feature.float() for name, feature in super().forward(x).items()}


@META_ARCH_REGISTRY.register()
class FPNDetector(OwnWeights, GeneralizedRCNN):
    """Detectron2's Faster R-CNN with FPN on any of this project's backbones (paper, section 3.2).

    It keeps Detectron2's contract: list of dicts in; losses in training, `{"instances"}` in evaluation.
    """

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that `cfg` stands for.

        Raises:
            InputError: MODEL.DETECTOR.MODE is not alone, there are no object classes, or the backbone is dilated.
        """
        if cfg.MODEL.DETECTOR.MODE != "alone":
            raise InputError(
                f"MODEL.DETECTOR.MODE: {cfg.MODEL.DETECTOR.MODE!r} with META_ARCHITECTURE FPNDetector; set it to alone"
            )
        if cfg.MODEL.BACKBONE.OUTPUT_STRIDE != 32:
            raise InputError(
                f"MODEL.BACKBONE.OUTPUT_STRIDE: {cfg.MODEL.BACKBONE.OUTPUT_STRIDE} under an FPN; set it to 32"
            )
        name_classes(cfg)
        cfg = with_object_classes(cfg)
        pyramid = cfg.MODEL.FPN
        backbone = _Pyramid(
            bottom_up=build_backbone(cfg),
            in_features=pyramid.IN_FEATURES,
            out_channels=pyramid.OUT_CHANNELS,
            norm=resolve_norm(pyramid.NORM, cfg.MODEL.DEVICE),
            top_block=LastLevelMaxPool(),
            fuse_type=pyramid.FUSE_TYPE,
        )
        shape = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, shape),
            "roi_heads": build_roi_heads(cfg, shape),
            "input_format": cfg.INPUT.FORMAT,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }
