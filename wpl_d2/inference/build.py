"""Building the inference of a config: whole images, windows or the center, with or without TTA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from torch import nn

from ..config.validation import check_section
from ..modeling import UnifiedSegDet
from .sliding_window import CenterCrop, Predict, SlidingWindow, pad_to
from .tta import PredictResized, PredictWithTTA


class Inference(nn.Module):
    """A model that segments by windows, crop or TTA, with Detectron2's contract in evaluation.

    Attributes:
        model: segments, and detects objects in the whole image.
        predict: a wrapper of `model.segment`.
        canvas: if set, images are padded to at least this (height, width), and "sem_seg" is of the padded image,
            whatever output size is requested.
        fill: color of the padding, in 0..255.
    """

    def __init__(
        self,
        model: UnifiedSegDet,
        predict: Predict,
        canvas: tuple[int, int] | None = None,
        fill: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Wrap a model, keeping its mode; args as the attributes."""
        super().__init__()
        self.model = model
        self.predict = predict
        self.canvas = canvas
        self.fill = fill
        self.training = model.training

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict images one by one.

        Args:
            batched_inputs: one dict per image: "image" (3, H, W) in 0..255, optionally "height" and "width" of the
                output.

        Returns:
            one dict per image: "sem_seg" (C, height, width) float32 logits and, with a detector, "instances" in pixels
            of the output.
        """
        return [self._one(item) for item in batched_inputs]

    def _one(self, item: dict[str, Any]) -> dict[str, Any]:
        image = item["image"].to(self.model.device).float()
        size = (image.shape[-2], image.shape[-1])
        output = (item.get("height", size[0]), item.get("width", size[1]))
        if self.canvas is not None:
            result = {"sem_seg": self.predict(pad_to(image[None], self.canvas, self.fill)[0])[0]}
        else:
            logits = self.predict(image[None])[0]
            result = {"sem_seg": logits if output == size else sem_seg_postprocess(logits, size, *output)}
        if self.model.has_detector:
            result["instances"] = detector_postprocess(self.model.detect_images(image[None])[0], *output)
        return result


def build_inference(cfg: Any, model: UnifiedSegDet) -> nn.Module:
    """Build what predicts a model's images as `TEST.INFERENCE` says.

    Args:
        cfg: a complete config.
        model: not copied.

    Returns:
        an `Inference`, or the model itself if it only detects or predicts whole images without TTA.

    Raises:
        InputError: see `build_predict`.
    """
    if cfg.MODEL.DETECTOR.MODE == "alone":
        return model
    predict = build_predict(cfg, model.segment)
    if predict == model.segment:
        return model
    canvas = evaluated_crop(cfg) if cfg.TEST.INFERENCE.JUDGE_PADDING else None
    return Inference(model, predict, canvas, tuple(cfg.MODEL.PIXEL_MEAN))


def build_predict(cfg: Any, predict: Predict) -> Predict:
    """Wrap anything that segments, such as an exported file, as `TEST.INFERENCE` says.

    Args:
        cfg: a complete config.
        predict: the segmentation of a batch.

    Returns:
        the wrapper, or `predict` itself for whole images without TTA.

    Raises:
        InputError: a key of TEST.INFERENCE has an invalid value.
    """
    check_section(cfg, "TEST.INFERENCE")
    keys = cfg.TEST.INFERENCE
    crop, fill, scales = tuple(keys.CROP_SIZE), tuple(cfg.MODEL.PIXEL_MEAN), tuple(map(float, keys.SCALES))
    if keys.MODE == "slide":
        stride = tuple(keys.STRIDE)
        predict = SlidingWindow(predict, crop, stride, keys.BORDER, keys.AVERAGE, keys.WINDOW_BATCH, fill)
    if keys.FLIP or scales != (1.0,):
        predict = PredictWithTTA(predict, scales, keys.FLIP, keys.AVERAGE)
    if keys.SHORTER_SIDE:
        predict = PredictResized(predict, keys.SHORTER_SIDE)
    return CenterCrop(predict, crop, fill) if keys.MODE == "crop" else predict


def evaluated_crop(cfg: Any) -> tuple[int, int] | None:
    """(height, width) of the center that is predicted and evaluated; None for the whole image."""
    return tuple(cfg.TEST.INFERENCE.CROP_SIZE) if cfg.TEST.INFERENCE.MODE == "crop" else None
