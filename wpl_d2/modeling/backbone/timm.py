"""Any backbone of timm that can return feature maps at a chosen output stride."""

from __future__ import annotations

from typing import Any

import timm
from detectron2.layers import NaiveSyncBatchNorm, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import BatchNormAct2d, convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from ...errors import InputError, nearest
from ..norm import resolve_norm

_FEATURES = ("res2", "res3", "res4", "res5")


class TimmBackbone(Backbone):
    """The last four feature maps of a timm model, under Detectron2's names.

    They are "res2" (stride 4), "res3" (8), "res4" and "res5": 16 and 32 at output stride 32, 16 and 16 at 16,
    8 and 8 at 8.

    Attributes:
        body: timm's feature extractor.
    """

    def __init__(self, name: str, output_stride: int = 16, norm: str = "BN") -> None:
        """Create the timm model.

        Args:
            name: as in `timm.list_models()`.
            output_stride: stride of the last feature map, 8, 16 or 32.
            norm: BN keeps the model's layers; SyncBN, naiveSyncBN and FrozenBN replace its BN layers.

        Raises:
            InputError: an unknown model, or one without feature maps at this output stride.
        """
        super().__init__()
        body = _create(name, output_stride)
        self._out_features = list(_FEATURES)
        self._out_feature_strides = dict(zip(_FEATURES, body.feature_info.reduction(), strict=True))
        self._out_feature_channels = dict(zip(_FEATURES, body.feature_info.channels(), strict=True))
        self.body: nn.Module = _convert_norm(body, norm)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps by name of a normalized image (B, 3, H, W)."""
        return dict(zip(_FEATURES, self.body(image), strict=True))


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: Any, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the timm model MODEL.TIMM.NAME at MODEL.BACKBONE.OUTPUT_STRIDE, normalized by MODEL.RESNETS.NORM.

    Args:
        cfg: also reads MODEL.DEVICE.
        input_shape: of the image, which must have 3 channels.

    Raises:
        InputError: see `TimmBackbone`; or FREEZE_AT is set, which has no common meaning over timm's models.
    """
    if cfg.MODEL.BACKBONE.FREEZE_AT:
        raise InputError("MODEL.BACKBONE.FREEZE_AT: timm backbones cannot be frozen in part; set it to 0")
    if input_shape.channels != 3:
        raise InputError(f"MODEL.PIXEL_MEAN: {input_shape.channels} channels; timm backbones take 3")
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        output_stride=cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
        norm=resolve_norm(cfg.MODEL.RESNETS.NORM, cfg.MODEL.DEVICE),
    )


def _create(name: str, output_stride: int) -> Any:
    if not timm.is_model(name):
        mend = nearest(name, timm.list_models(), "see timm.list_models()")
        raise InputError(f"MODEL.TIMM.NAME: timm has no model {name!r}; {mend}")
    try:
        body: Any = timm.create_model(
            name,
            features_only=True,
            out_indices=(-4, -3, -2, -1),
            output_stride=output_stride,
        )
    except (TypeError, RuntimeError, IndexError) as error:
        raise InputError(
            f"MODEL.TIMM.NAME: {name} gives no four feature maps at output stride {output_stride} ({error}); "
            "choose a convolutional model such as resnet18 or tf_efficientnet_lite0"
        ) from error
    strides = body.feature_info.reduction()
    wanted = [4, 8, min(16, output_stride), output_stride]
    if strides != wanted:
        raise InputError(
            f"MODEL.TIMM.NAME: {name} has feature maps of strides {strides} where {wanted} are needed; "
            "choose another model or MODEL.BACKBONE.OUTPUT_STRIDE"
        )
    return body


class _NaiveSyncBatchNormAct(NaiveSyncBatchNorm):
    """`NaiveSyncBatchNorm` in the place of timm's fused normalization, dropout and activation."""

    def __init__(self, fused: BatchNormAct2d) -> None:
        super().__init__(fused.num_features, eps=fused.eps, momentum=fused.momentum)
        self.drop, self.act = fused.drop, fused.act

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _convert_norm(body: nn.Module, norm: str) -> nn.Module:
    """Replace all batch normalization of `body`, keeping its weights, statistics and fused activations."""
    if norm == "BN":
        return body
    if norm == "SyncBN":
        return convert_sync_batchnorm(body)
    if norm == "FrozenBN":
        return freeze_batch_norm_2d(body)
    if norm == "naiveSyncBN":
        return _to_naive_sync(body)
    raise InputError(f"MODEL.RESNETS.NORM: not {norm!r} for timm backbones; choose auto, BN or FrozenBN")


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
