"""From config to the way in which images are predicted: whole, in windows, the centre; mirrored, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from torch import nn

from ..modeling import UnifiedSegDet
from ..utils.errors import InputError, check_name
from .sliding_window import AVERAGES, BORDERS, CentreCrop, Predict, SlidingWindow, pad_to
from .tta import PredictWithTTA

MODES = ("whole", "slide", "crop")


class Inference(nn.Module):
    """A model with another way to segment; to its callers it is the model: Detectron2's contract in evaluation.

    Attributes:
        model: what segments, and finds the boxes, those always on the whole image.
        predict: the way, around `model.segment`.
        canvas: None, or the least (height, width) that an image is padded to, with the colour `fill`. Then "sem_seg" is
            of the padded image, whatever output is asked for.
        fill: in 0..255.
    """

    def __init__(
        self,
        model: UnifiedSegDet,
        predict: Predict,
        canvas: tuple[int, int] | None = None,
        fill: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Wrap a model, in the mode (training or not) in which it is; the arguments are the attributes."""
        super().__init__()
        self.model = model
        self.predict = predict
        self.canvas = canvas
        self.fill = fill
        self.training = model.training

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict each image by itself.

        Args:
            batched_inputs: one dict an image: "image" (3, H, W) in 0..255, perhaps "height" and "width" of the output.

        Returns:
            one dict an image: "sem_seg" (C, height, width) float32 logits and, with a detector, "instances" in pixels
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
    """The model as `TEST.INFERENCE` wants it evaluated.

    Args:
        cfg: a complete config.
        model: to be evaluated; it is not copied.

    Returns:
        the model itself for whole images without augmentation and where it only finds boxes, else an `Inference`.

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
    """The way of `TEST.INFERENCE` around anything that segments, such as an exported file.

    Args:
        cfg: a complete config.
        predict: images (N, 3, H, W) float in 0..255 -> logits (N, C, H, W).

    Returns:
        the same kind of function; `predict` itself for whole images without augmentation.

    Raises:
        InputError: a key of TEST.INFERENCE has a value that does not do.
    """
    keys = cfg.TEST.INFERENCE
    mode = check_name("TEST.INFERENCE.MODE", keys.MODE, MODES)
    average = check_name("TEST.INFERENCE.AVERAGE", keys.AVERAGE, AVERAGES)
    border = check_name("TEST.INFERENCE.BORDER", keys.BORDER, BORDERS)
    crop, fill = _pair("CROP_SIZE", keys.CROP_SIZE), tuple(cfg.MODEL.PIXEL_MEAN)
    if mode == "slide":
        stride = _pair("STRIDE", keys.STRIDE)
        if stride[0] > crop[0] or stride[1] > crop[1]:
            raise InputError(
                f"TEST.INFERENCE.STRIDE: {stride} leaves gaps between windows of {crop}; take at most that"
            )
        if keys.WINDOW_BATCH < 1:
            raise InputError(f"TEST.INFERENCE.WINDOW_BATCH: {keys.WINDOW_BATCH} windows; take at least 1")
        predict = SlidingWindow(predict, crop, stride, border, average, keys.WINDOW_BATCH, fill)
    scales = _scales(keys.SCALES)
    if keys.FLIP or scales != (1.0,):
        predict = PredictWithTTA(predict, scales, keys.FLIP, average)
    return CentreCrop(predict, crop, fill) if mode == "crop" else predict


def evaluated_crop(cfg: Any) -> tuple[int, int] | None:
    """(height, width) of the centre outside of which nothing is predicted nor judged; None for all of the image."""
    return _pair("CROP_SIZE", cfg.TEST.INFERENCE.CROP_SIZE) if cfg.TEST.INFERENCE.MODE == "crop" else None


def _pair(key: str, value: Sequence[int]) -> tuple[int, int]:
    if len(value) != 2 or not all(isinstance(length, int) and length > 0 for length in value):
        raise InputError(f"TEST.INFERENCE.{key}: {value} is not a size; give (height, width) in pixels")
    height, width = value
    return height, width


def _scales(value: Sequence[float]) -> tuple[float, ...]:
    if not value or not all(scale > 0 for scale in value):
        raise InputError(f"TEST.INFERENCE.SCALES: {value}; give one factor > 0 or more, such as (0.5, 1.0, 1.5)")
    return tuple(float(scale) for scale in value)
