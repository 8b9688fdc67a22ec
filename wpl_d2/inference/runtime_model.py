"""A trained model ready for use, whatever kind of file it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling import UnifiedSegDet
from .sliding_window import Predict


class Detections(NamedTuple):
    """The boxes of one image.

    Attributes:
        boxes: (N, 4) float xyxy in pixels.
        scores: (N,) float in [0, 1], falling.
        classes: (N,) int64 semantic class ids.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


Detect = Callable[[Tensor], list[Detections]]
"""Images (N, 3, H, W) float in 0..255 -> the boxes of each."""


@dataclass(frozen=True)
class RuntimeModel:
    """What can be done with a trained model.

    Attributes:
        metadata: what its file says of it, as `build_metadata` has it.
        segment: images (N, 3, H, W) float RGB in 0..255 -> logits (N, C, H, W); None if it only finds boxes.
        detect: None if it only segments.
        min_size: the fewest pixels a side of images that it takes.
    """

    metadata: Mapping[str, Any]
    segment: Predict | None
    detect: Detect | None
    min_size: int = 1


def build_runtime_model(model: nn.Module, metadata: Mapping[str, Any]) -> RuntimeModel:
    """What `load_model` returned, ready for use.

    Args:
        model: in evaluation mode; a `UnifiedSegDet`, or one that only finds boxes by Detectron2's contract.
        metadata: of the same call.
    """
    plain = {**metadata, "config": metadata["config"].dump()}
    classes = torch.tensor(metadata["objects"], dtype=torch.int64)

    def found(instances: Instances) -> Detections:
        ids = classes.to(instances.pred_classes.device)[instances.pred_classes]
        return Detections(instances.pred_boxes.tensor, instances.scores, ids)

    if isinstance(model, UnifiedSegDet):
        detect = (lambda images: [found(own) for own in model.detect_images(images)]) if model.has_detector else None
        return RuntimeModel(plain, model.segment, detect)
    return RuntimeModel(plain, None, lambda images: [found(out["instances"]) for out in model(_items(images))])


def _items(images: Tensor) -> list[dict[str, Tensor]]:
    return [{"image": image} for image in images]
