"""What training is fed, as pictures: labeled views with masks and boxes, unlabeled views from weak to mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from ..data.pixel_values import PixelLayout
from ..frameworks.mixing import cutmix, cutmix_masks
from ..structures import IGNORE, Detections, PseudoLabels, class_boxes
from .draw import draw_boxes, render, to_image
from .sheet import Row

VALID = "valid: white is image, black is padding and trains nothing"
"""What the panels of that title show."""


def render_sample(sample: dict[str, Any], layout: PixelLayout) -> dict[str, Any]:
    """A sample with its images as colors, to be drawn."""
    rendered: dict[str, Any] = {"image": torch.from_numpy(render(sample["image"], layout))}
    if "strong" in sample:
        rendered["strong"] = torch.stack([torch.from_numpy(render(view, layout)) for view in sample["strong"]])
    if "paste" in sample:
        rendered["paste"] = render_sample(sample["paste"], layout)
    return sample | rendered


def draw_labeled(sample: dict[str, Any], metadata: Any) -> Row:
    """The image, its mask over it, its boxes over it, what of it is valid.

    With INPUT.PASTE the same follows of the second image, where there is one.
    """
    image = sample["image"].permute(1, 2, 0).numpy()
    row = {"labeled view": image, "mask": Visualizer(image, metadata).draw_sem_seg(sample["sem_seg"]).get_image()}
    if "instances" in sample:
        instances = sample["instances"]
        names = [metadata.thing_classes[i] for i in instances.gt_classes]
        drawing = Visualizer(image, metadata).overlay_instances(boxes=instances.gt_boxes, labels=names)
        row["boxes"] = drawing.get_image()
    # Detectron2's drawings may be a pixel larger or smaller than the image.
    size = (image.shape[1], image.shape[0])
    panels = {title: Image.fromarray(np.ascontiguousarray(panel)).resize(size) for title, panel in row.items()}
    panels["valid"] = to_image(_mask_panel(sample["valid"]))
    if "paste" in sample:
        second = draw_labeled(sample["paste"], metadata)
        panels |= {f"second image: {title}": panel for title, panel in second.items()}
    return panels


def draw_unlabeled(sample: dict[str, Any], partner: dict[str, Any], cfg: Any, metadata: Any) -> Row:
    """Weak view, strong views, what is valid, then each strong view mixed with another.

    The weak view is followed by its cached boxes from RPPI.BOX_SCORE on, over it, if there are some; a mixed view by
    what is valid of it, which moved with the pixels.
    """
    keys = cfg.FRAMEWORK.CUTMIX
    strong = torch.stack([sample["strong"], partner["strong"]], dim=1)
    valid = torch.stack([sample["valid"], partner["valid"]])
    row = {"weak view": sample["image"]}
    if "detections" in sample:
        row["boxes"] = _box_panel(sample["image"], sample["detections"], cfg.RPPI.BOX_SCORE, metadata)
    row |= {f"strong view {number}": view for number, view in enumerate(sample["strong"], start=1)}
    row["valid"] = _mask_panel(sample["valid"])
    for number, views in enumerate(strong, start=1):
        boxes = cutmix_masks(2, valid.shape[1:], 1.0, keys.AREA, keys.RATIO)
        images, pseudo = cutmix(views, _blank(valid), boxes)
        row |= {f"strong view {number}, mixed": images[0], f"valid of mixed {number}": _mask_panel(pseudo.valid[0])}
    return {title: to_image(panel) for title, panel in row.items()}


def _box_panel(image: torch.Tensor, found: Detections, min_score: float, metadata: Any) -> torch.Tensor:
    ((boxes, classes),) = class_boxes([found], min_score)
    names = [metadata.stuff_classes[index] for index in classes]
    return torch.from_numpy(draw_boxes(image, boxes, names, [metadata.stuff_colors[index] for index in classes]))


def _blank(valid: torch.Tensor) -> PseudoLabels:
    nothing, one = torch.full(valid.shape, IGNORE), torch.ones(valid.shape)
    return PseudoLabels(nothing, one, valid, torch.zeros_like(valid), one)


def _mask_panel(mask: torch.Tensor) -> torch.Tensor:
    return mask.to(torch.uint8).mul(255).expand(3, -1, -1)
