"""timm models as backbones, with a choice of output stride."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
from detectron2.config import configurable
from detectron2.layers import NaiveSyncBatchNorm, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from ...utils.errors import InputError, suggest
from ..layers import resolve_norm
from .mit import from_published

FEATURES = ("res2", "res3", "res4", "res5")
OUT_INDICES = (-4, -3, -2, -1)
"""The indices of `FEATURES` among timm's feature maps."""


class TimmBackbone(Backbone):
    """The last four feature maps of a timm model, under Detectron2's names.

    "res2" has stride 4 and "res3" stride 8; "res4" and "res5" have strides 16 and 32 at output stride 32, 16 and 16 at
    16, and 8 and 8 at 8.

    Attributes:
        body: timm's feature extractor.
        name: of the timm model.
    """

    @configurable
    def __init__(
        self,
        name: str,
        output_stride: int = 16,
        norm: str = "BN",
        bn_momentum: float = 0.0,
        bn_eps: float = 0.0,
        in_channels: int = 3,
    ) -> None:
        """Create the timm model.

        Args:
            name: one of `timm.list_models()`.
            output_stride: stride of the last feature map, 8, 16 or 32.
            norm: BN keeps the model's layers; SyncBN, naiveSyncBN and FrozenBN replace its BN layers.
            bn_momentum: of the BN layers; 0 keeps the model's.
            bn_eps: of the BN layers; 0 keeps the model's.
            in_channels: of the images.

        Raises:
            InputError: the model is not known, or has no feature maps at this output stride.
        """
        super().__init__()
        self.name = name
        body = self.create_body(name, output_stride, in_channels)
        strides = body.feature_info.reduction()
        _check_strides(name, strides, output_stride)
        self._out_features = list(FEATURES)
        self._out_feature_strides = dict(zip(FEATURES, strides, strict=True))
        self._out_feature_channels = dict(zip(FEATURES, body.feature_info.channels(), strict=True))
        for norm_layer in (module for module in body.modules() if isinstance(module, nn.BatchNorm2d)):
            norm_layer.momentum = bn_momentum or norm_layer.momentum
            norm_layer.eps = bn_eps or norm_layer.eps
        self.body: nn.Module = _convert_norm(body, norm)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read MODEL.TIMM, MODEL.BACKBONE.OUTPUT_STRIDE, MODEL.RESNETS.NORM and MODEL.DEVICE.

        Args:
            cfg: a complete config.
            input_shape: of the image.
        """
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "output_stride": cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
            "norm": resolve_norm(cfg.MODEL.RESNETS.NORM, cfg.MODEL.DEVICE),
            "bn_momentum": cfg.MODEL.TIMM.BN_MOMENTUM,
            "bn_eps": cfg.MODEL.TIMM.BN_EPS,
            "in_channels": input_shape.channels,
        }

    @staticmethod
    def create_body(name: str, output_stride: int, in_channels: int) -> Any:
        """Create the module that computes the feature maps, with timm's `feature_info` of these maps."""
        options = {"features_only": True, "out_indices": OUT_INDICES, "in_chans": in_channels}
        return create_timm_model(name, output_stride, **options)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps, by name, of normalized images (B, C, H, W)."""
        return dict(zip(FEATURES, self.body(image), strict=True))

    def convert(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights in timm's layout, or those of a MiT (see `from_published`), under the names of `body`."""
        wanted = self.body.state_dict()
        return {_extractors_name(key, wanted): value for key, value in from_published(weights).items()}


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: Any, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the timm model MODEL.TIMM.NAME; see `TimmBackbone.from_config`."""
    return TimmBackbone(cfg, input_shape)


def create_timm_model(name: str, output_stride: int, **options: Any) -> Any:
    """Call `timm.create_model`, with clear errors.

    Args:
        name: one of `timm.list_models()`.
        output_stride: of the last feature map.
        options: further arguments of `timm.create_model`.

    Raises:
        InputError: the model is not known, or has no such feature maps.
    """
    check_timm_name(name)
    try:
        return timm.create_model(name, output_stride=output_stride, **options)
    except (TypeError, RuntimeError, IndexError, AssertionError) as error:
        raise InputError(
            f"MODEL.TIMM.NAME: {name} gives no four feature maps at output stride {output_stride} ({error}); "
            "choose another MODEL.BACKBONE.OUTPUT_STRIDE, or a convolutional model such as resnet18"
        ) from error


def check_timm_name(name: str) -> None:
    """Reject a name that no model of timm has, by an `InputError`."""
    if not timm.is_model(name):
        mend = suggest(name, timm.list_models(), "see timm.list_models()")
        raise InputError(f"MODEL.TIMM.NAME: timm has no model {name!r}; {mend}")


def _extractors_name(key: str, wanted: Mapping[str, Tensor]) -> str:
    """timm's name of a tensor in a feature extractor, some of which have "stages_0" for "stages.0"."""
    flat = key.replace(".", "_", 1)
    return flat if flat in wanted else key


def _check_strides(name: str, strides: list[int], output_stride: int) -> None:
    wanted = [4, 8, min(16, output_stride), output_stride]
    if strides != wanted:
        raise InputError(
            f"MODEL.TIMM.NAME: {name} has feature maps of strides {strides} where {wanted} are needed; "
            "choose another model or MODEL.BACKBONE.OUTPUT_STRIDE"
        )


class _NaiveSyncBatchNormAct(NaiveSyncBatchNorm):
    """`NaiveSyncBatchNorm` in place of timm's fused normalization, dropout and activation."""

    def __init__(self, fused: BatchNormAct2d) -> None:
        super().__init__(fused.num_features, eps=fused.eps, momentum=fused.momentum)
        self.drop, self.act = fused.drop, fused.act

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _convert_norm(body: nn.Module, norm: str) -> nn.Module:
    """Replace all batch normalization of `body` and keep its weights, statistics and fused activations."""
    if norm == "BN":
        return body
    if norm == "SyncBN":
        return convert_sync_batchnorm(body)
    if norm == "FrozenBN":
        frozen = freeze_batch_norm_2d(body)
        for module in frozen.modules():
            if isinstance(module, FrozenBatchNormAct2d):
                module.forward = partial(_frozen_norm, module)  # type: ignore[method-assign]
        return frozen
    return _to_naive_sync(body)


def _frozen_norm(norm: Any, images: Tensor) -> Tensor:
    """The `forward` of a `FrozenBatchNormAct2d` in one pass over the images, not two."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * scale
    images = torch.addcmul(bias.view(-1, 1, 1), images, scale.view(-1, 1, 1))
    return norm.act(norm.drop(images))


def _to_naive_sync(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            _to_naive_sync(child)
            continue
        if isinstance(child, BatchNormAct2d):
            synced: nn.Module = _NaiveSyncBatchNormAct(child)
        else:
            synced = NaiveSyncBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
        synced.load_state_dict(child.state_dict())
        setattr(module, name, synced)
    return module
