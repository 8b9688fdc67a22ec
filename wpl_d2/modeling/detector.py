"""Faster R-CNN on the segmenter's backbone, and on a feature pyramid of its own (the paper's detector)."""

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

from ..config.validation import check_section
from ..utils.errors import InputError
from .layers import resolve_norm
from .model_metadata import register_classes
from .weights import FrameworkCheckpointMixin

_FEATURE = "det"
_LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")


class SharedDetector(nn.Module):
    """Faster R-CNN's region proposals and box head on one dilated feature map (DC5).

    A 1x1 convolution first reduces res5: without it the first fully connected layer alone has 103 M weights.

    Attributes:
        reduction: 1x1 convolution with ReLU, from res5 to the feature map "det".
        proposal_generator: Detectron2's RPN.
        roi_heads: Detectron2's box head.
        object_classes: (N,) int64 semantic class id of each detector class.
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
        """Build from parts, as `from_config` makes them from a config.

        Args:
            reduction: from res5 to the feature map "det".
            proposal_generator: reads "det".
            roi_heads: reads "det".
            object_classes: semantic class ids of the detector's classes, in their order.
            loss_weight: factor of all losses.
        """
        super().__init__()
        self.reduction = reduction
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.loss_weight = loss_weight
        self.register_buffer("object_classes", torch.tensor(list(object_classes)), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Build the parts from MODEL.DETECTOR and Detectron2's keys.

        Raises:
            InputError: MODEL.DETECTOR.CLASSES is empty, or Detectron2 pools no maps of the backbone's stride.
        """
        cfg = with_object_classes(cfg)
        if (stride := input_shape["res5"].stride).bit_count() > 1:
            raise InputError(
                f"MODEL.DETECTOR.MODE: shared, but boxes are pooled from maps of 8, 16 or 32 pixels, and this "
                f"backbone's have {stride}; set it to cached, with the boxes of another detector, or to none"
            )
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
        """Detect objects in evaluation mode, independent of `training`.

        Args:
            features: the backbone's; "res5" is read.
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
        """Compute Detectron2's RPN and box head losses, times the loss weight, independent of `training`.

        They log statistics, so an `EventStorage` must be open, as everywhere in Detectron2.

        Args:
            features: the backbone's; "res5" is read.
            sizes: (height, width) of each image in pixels.
            instances: per image gt_boxes (pixels) and gt_classes (int64, the detector's); may be empty.
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
        # Boxes get the dtype of the features, and bfloat16 would move their corners by pixels.
        reduced = self.reduction(features["res5"]).float()
        # Proposal generator and heads read nothing but the sizes of the images.
        return ImageList(reduced, sizes), {_FEATURE: reduced}


def losses_or_nan(model: nn.Module, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Compute a Detectron2 detector's losses, or NaN where it raises an error because predictions are not finite.

    An error in one process would leave the others waiting for its gradients, while NaN reaches all of them.

    Args:
        model: the detector; all of its parameters get a gradient.
        compute: returns the losses.
    """
    try:
        return compute()
    except FloatingPointError:
        diverged = torch.stack([p.sum() for p in model.parameters() if p.requires_grad]).sum() * torch.nan
        return dict.fromkeys(_LOSSES, diverged)


def with_object_classes(cfg: Any) -> Any:
    """Copy `cfg` with MODEL.ROI_HEADS.NUM_CLASSES set to the number of the data set's object classes.

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
    """Put `module` into training or evaluation mode inside, and restore the mode of each submodule after."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was_training in before:
            part.training = was_training


class _Pyramid(FPN):
    """Detectron2's FPN with float32 features, whose dtype boxes get: bfloat16 would move their corners by pixels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: feature.float() for name, feature in super().forward(x).items()}


@META_ARCH_REGISTRY.register()
class FPNDetector(FrameworkCheckpointMixin, GeneralizedRCNN):
    """Detectron2's Faster R-CNN with FPN on any of this project's backbones (paper, section 3.2)."""

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Build the parts that `cfg.MODEL` describes.

        Raises:
            InputError: an invalid value below MODEL, or there are no object classes.
        """
        check_section(cfg, "MODEL")
        register_classes(cfg)
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
