"""What training is fed, as pictures: labeled views with masks and boxes, unlabeled views from weak to mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.utils.visualizer import Visualizer

from ..frameworks.mixing import cutmix, cutmix_masks
from ..structures import IGNORE, Detections, PseudoLabels, class_boxes
from .draw import draw_boxes


def draw_labeled(sample: dict[str, Any], metadata: Any) -> list[np.ndarray]:
    """Panels (H, W, 3) uint8: the image, its mask over it, its boxes over it, its valid mask.

    With INPUT.PASTE the same follows of the second image, where there is one.
    """
    image = _to_array(sample["image"])
    panels = [image, Visualizer(image, metadata).draw_sem_seg(sample["sem_seg"]).get_image()]
    if "instances" in sample:
        instances = sample["instances"]
        names = [metadata.thing_classes[i] for i in instances.gt_classes]
        drawing = Visualizer(image, metadata).overlay_instances(boxes=instances.gt_boxes, labels=names)
        panels.append(drawing.get_image())
    panels.append(_to_array(_mask_panel(sample["valid"])))
    return panels + draw_labeled(sample["paste"], metadata) if "paste" in sample else panels


def draw_unlabeled(sample: dict[str, Any], partner: dict[str, Any], cfg: Any, metadata: Any) -> list[np.ndarray]:
    """Panels (H, W, 3) uint8: weak view, strong views, valid mask, then each strong view mixed with another.

    The weak view is followed by its cached boxes from RPPI.BOX_SCORE on, over it, if there are some; a mixed view by
    its valid mask, which moved with the pixels.
    """
    keys = cfg.FRAMEWORK.CUTMIX
    strong = torch.stack([sample["strong"], partner["strong"]], dim=1)
    valid = torch.stack([sample["valid"], partner["valid"]])
    weak = [sample["image"]]
    if "detections" in sample:
        weak.append(_box_panel(sample["image"], sample["detections"], cfg.RPPI.BOX_SCORE, metadata))
    panels = [*weak, *sample["strong"], _mask_panel(sample["valid"])]
    for views in strong:
        boxes = cutmix_masks(2, valid.shape[1:], 1.0, keys.AREA, keys.RATIO)
        images, pseudo = cutmix(views, _blank(valid), boxes)
        panels += [images[0], _mask_panel(pseudo.valid[0])]
    return [_to_array(panel) for panel in panels]


def _box_panel(image: torch.Tensor, found: Detections, min_score: float, metadata: Any) -> torch.Tensor:
    ((boxes, classes),) = class_boxes([found], min_score)
    names = [metadata.stuff_classes[index] for index in classes]
    return torch.from_numpy(draw_boxes(image, boxes, names, [metadata.stuff_colors[index] for index in classes]))


def _blank(valid: torch.Tensor) -> PseudoLabels:
    nothing, one = torch.full(valid.shape, IGNORE), torch.ones(valid.shape)
    return PseudoLabels(nothing, one, valid, torch.zeros_like(valid), one)


def _mask_panel(mask: torch.Tensor) -> torch.Tensor:
    return mask.to(torch.uint8).mul(255).expand(3, -1, -1)


def _to_array(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
