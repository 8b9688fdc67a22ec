"""Faster R-CNN: on the shared backbone, and alone on a feature pyramid (the paper's detector)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_proposal_generator, build_roi_heads
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import ImageList, Instances
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..utils.errors import InputError
from .layers import resolve_norm
from .model_metadata import name_classes
from .weights import OwnWeights

_FEATURE = "det"
_LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")


class SharedDetector(nn.Module):
    """Region proposals and box head of Faster R-CNN on one dilated feature map (DC5).

    A 1x1 reduction of res5 comes first: without it the first fully connected layer alone has 103 M weights.

    Attributes:
        reduction: 1x1 convolution with ReLU; its output is the feature "det".
        proposal_generator: Detectron2's RPN.
        roi_heads: Detectron2's box head.
        object_classes: (N,) int64, the semantic class id of each detector class.
    """

    object_classes: Tensor

    @configurable
    def __init__(
        self,
        *,
        reduction: nn.Module,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        object_classes: Sequence[int],
        loss_weight: float,
    ) -> None:
        """Put the parts together.

        Args:
            reduction: from res5 to the feature "det".
            proposal_generator: reads the feature "det".
            roi_heads: reads the feature "det".
            object_classes: semantic class ids of the detector's classes, in their order.
            loss_weight: factor of all the detector's losses.
        """
        super().__init__()
        self.reduction = reduction
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.loss_weight = loss_weight
        self.register_buffer("object_classes", torch.tensor(list(object_classes)), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that `cfg.MODEL` stands for.

        Raises:
            InputError: MODEL.DETECTOR.CLASSES is empty.
        """
        cfg = with_object_classes(cfg)
        res5, channels = input_shape["res5"], cfg.MODEL.DETECTOR.CHANNELS
        shape = {_FEATURE: ShapeSpec(channels=channels, stride=res5.stride)}
        reduction = Conv2d(res5.channels, channels, kernel_size=1, activation=nn.ReLU())
        weight_init.c2_msra_fill(reduction)
        return {
            "reduction": reduction,
            "proposal_generator": build_proposal_generator(cfg, shape),
            "roi_heads": build_roi_heads(cfg, shape),
            "object_classes": cfg.MODEL.DETECTOR.CLASSES,
            "loss_weight": cfg.MODEL.DETECTOR.LOSS_WEIGHT,
        }

    def detect(self, features: dict[str, Tensor], sizes: list[tuple[int, int]]) -> list[Instances]:
        """Find boxes, as in evaluation whatever `training` says.

        Args:
            features: of the backbone; "res5" is read.
            sizes: (height, width) of each image in pixels.

        Returns:
            for each image `Instances` with pred_boxes (pixels of the input), scores and pred_classes (int64, of the
            detector: indices into `object_classes`).
        """
        with _mode(self, training=False):
            images, reduced = self._inputs(features, sizes)
            proposals, _ = self.proposal_generator(images, reduced)
            return self.roi_heads(images, reduced, proposals)[0]

    def losses(
        self, features: dict[str, Tensor], sizes: list[tuple[int, int]], instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Detectron2's losses of RPN and box head, times the loss weight, whatever `training` says.

        They log their statistics: as in all of Detectron2, an `EventStorage` must be open.

        Args:
            features: of the backbone; "res5" is read.
            sizes: (height, width) of each image in pixels.
            instances: for each image gt_boxes (pixels) and gt_classes (int64, of the detector), perhaps none.
        """
        with _mode(self, training=True):
            losses = losses_or_nan(self, partial(self._losses, features, sizes, instances))
        return {name: loss * self.loss_weight for name, loss in losses.items()}

    def _losses(
        self, features: dict[str, Tensor], sizes: list[tuple[int, int]], instances: list[Instances]
    ) -> dict[str, Tensor]:
        images, reduced = self._inputs(features, sizes)
        proposals, losses = self.proposal_generator(images, reduced, instances)
        _, box_losses = self.roi_heads(images, reduced, proposals, instances)
        return losses | box_losses

    def _inputs(self, features: dict[str, Tensor], sizes: list[tuple[int, int]]) -> tuple[ImageList, dict[str, Tensor]]:
        # Detectron2 gives boxes the type of the features: bfloat16 would move their corners by pixels.
        reduced = self.reduction(features["res5"]).float()
        # Of the images, proposal generator and heads read the sizes alone.
        return ImageList(reduced, sizes), {_FEATURE: reduced}


def losses_or_nan(model: nn.Module, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Detectron2's losses of a detector; NaN where it raises an error because its predictions are not finite.

    With several processes an error would leave the others waiting for this one's gradients. NaN reaches all of them.

    Args:
        model: whose parameters all get a gradient.
        compute: gives the losses.
    """
    try:
        return compute()
    except FloatingPointError:
        diverged = torch.stack([p.sum() for p in model.parameters() if p.requires_grad]).sum() * torch.nan
        return dict.fromkeys(_LOSSES, diverged)


def with_object_classes(cfg: Any) -> Any:
    """A copy of `cfg` in which the heads have as many classes as the data set has objects.

    Raises:
        InputError: MODEL.DETECTOR.CLASSES is empty.
    """
    classes = cfg.MODEL.DETECTOR.CLASSES
    if not len(classes):
        raise InputError(
            "MODEL.DETECTOR.CLASSES: empty; name the data set's object classes in its description, "
            "or set MODEL.DETECTOR.MODE none"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
    return cfg


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put `module` into a mode for a while; afterwards each of its parts has its own again."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was_training in before:
            part.training = was_training


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
