"""A trained model ready to predict, from whatever kind of file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..modeling import UnifiedSegDet
from ..structures import Detections
from .sliding_window import Predict


class Prediction(NamedTuple):
    """A model's output for one image.

    Attributes:
        labels: (H, W) uint8 class ids; None from a model that only detects.
        detections: on the CPU; None from a model that only segments.
        confidence: (H, W) uint8, the probability of the label times 255; None unless it is asked for.
        probabilities: (C, H, W) float16, of all classes; None unless they are asked for.
    """

    labels: np.ndarray | None
    detections: Detections | None
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None


Detect = Callable[[Tensor], list[Detections]]
"""Images (N, 3, H, W) float in 0..255 -> the detections of each."""


@dataclass(frozen=True)
class RuntimeModel:
    """What a trained model can do.

    Attributes:
        metadata: of its file, see `wpl_d2.modeling.model_metadata`.
        segment: images (N, 3, H, W) float RGB in 0..255 -> logits (N, C, H, W); None if it only detects.
        detect: None if it only segments.
        min_size: the smallest image side in pixels that it accepts.
    """

    metadata: Mapping[str, Any]
    segment: Predict | None
    detect: Detect | None
    min_size: int = 1


def build_runtime_model(model: nn.Module, metadata: Mapping[str, Any]) -> RuntimeModel:
    """Build a runtime model from the results of `load_model`.

    Args:
        model: in evaluation mode; a `UnifiedSegDet`, or a detector with Detectron2's contract.
        metadata: with the config as a CfgNode.
    """
    plain = {**metadata, "config": metadata["config"].dump()}
    object_ids = torch.tensor(metadata["objects"], dtype=torch.int64)

    def detect(images: Tensor) -> list[Detections]:
        if isinstance(model, UnifiedSegDet):
            instances = model.detect_images(images)
        else:
            instances = [output["instances"] for output in model([{"image": image} for image in images])]
        return [Detections.from_instances(found, object_ids.to(found.pred_classes.device)) for found in instances]

    if isinstance(model, UnifiedSegDet):
        return RuntimeModel(plain, model.segment, detect if model.has_detector else None)
    return RuntimeModel(plain, None, detect)
