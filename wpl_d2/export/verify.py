"""Comparing an exported file's outputs with the model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..inference.runtime_model import RuntimeModel
from ..structures import Detections

MAX_DIFFERENCE = 1e-3
"""Of logits, relative to the largest logit."""
MIN_AGREEMENT = 0.999
"""Least fraction of pixels with the same class."""
MAX_SHIFT = 0.1
"""Of a box's edges, in pixels."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of two models on the same images.

    Attributes:
        sizes: (height, width) of the inputs.
        difference: largest absolute difference of logits.
        scale: largest absolute logit.
        same_class: fraction of pixels with the same class.
        shift: largest difference of box edges in pixels; infinite if numbers or classes differ; None without boxes.
        enlarged: original (height, width) of the images that were too small.
    """

    sizes: list[tuple[int, int]]
    difference: float
    scale: float
    same_class: float
    shift: float | None
    enlarged: list[tuple[int, int]]

    @property
    def within_limits(self) -> bool:
        """Whether all differences are within the limits of this module."""
        logits = self.difference <= MAX_DIFFERENCE * self.scale and self.same_class >= MIN_AGREEMENT
        return logits and (self.shift is None or self.shift <= MAX_SHIFT)

    def __str__(self) -> str:
        text = (
            f"largest difference {self.difference:.1e} (logits up to {self.scale:.1f}), "
            f"same class on {100 * self.same_class:.3f} % of the pixels"
        )
        if self.shift is not None:
            text += f", boxes {self.shift:.1e} pixels apart"
        text += f"; {len(self.sizes)} inputs of {_words(self.sizes)} (height x width)"
        return text + (f", of images enlarged from {_words(self.enlarged)}" if self.enlarged else "")


@torch.no_grad()
def compare(model: RuntimeModel, exported: RuntimeModel, images: Sequence[Tensor]) -> Agreement:
    """Run both models on parts of images of several sizes, odd, even and the smallest accepted, and on a batch.

    Args:
        model: the original.
        exported: the file, read back; boxes are compared if it has a detector.
        images: (3, H, W) in 0..255, at least one; enlarged if the file does not accept their parts.
    """
    least = exported.min_size
    views = list(_views([_enlarge(image.float(), 2 * least + 2) for image in images], least))
    differences, scales, same, shifts = [0.0], [0.0], [], []
    for view in views:
        if model.segment is not None and exported.segment is not None:
            ours, theirs = model.segment(view), exported.segment(view)
            differences.append((ours - theirs).abs().max().item())
            scales.append(ours.abs().max().item())
            same.append(_same_class(ours, theirs))
        if model.detect is not None and exported.detect is not None:
            shifts += [_shift(*pair) for pair in zip(model.detect(view), exported.detect(view), strict=True)]
    return Agreement(
        sizes=[(view.shape[-2], view.shape[-1]) for view in views],
        difference=max(differences),
        scale=max(scales),
        same_class=min(same, default=1.0),
        shift=max(shifts) if shifts else None,
        enlarged=[(h, w) for h, w in (image.shape[-2:] for image in images) if min(h, w) < 2 * least + 2],
    )


def _same_class(ours: Tensor, theirs: Tensor) -> float:
    """Fraction of pixels with the same class; where classes tie, as in uniform images, either one counts."""
    chosen = ours.gather(1, theirs.argmax(dim=1, keepdim=True))
    tied = MAX_DIFFERENCE * ours.abs().max()
    return (ours.amax(dim=1, keepdim=True) - chosen <= tied).float().mean().item()


def _words(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(sizes))


def _enlarge(image: Tensor, side: int) -> Tensor:
    """Enlarge an image to at least `side` pixels in height and width."""
    height, width = image.shape[-2:]
    if min(height, width) >= side:
        return image
    return F.interpolate(image[None], (max(height, side), max(width, side)), mode="bilinear", align_corners=False)[0]


def _views(images: Sequence[Tensor], least: int) -> Iterator[Tensor]:
    """Batches (N, 3, h, w) float: each image and parts of it, the first image's corner, the first and its mirror."""
    for image in images:
        whole = image[None]
        height, width = whole.shape[-2:]
        yield whole
        yield whole[..., : height * 3 // 4 | 1, : width // 2]
        yield whole[..., height // 3 :, : (width * 2 // 3) | 1]
        yield whole[..., : (height // 2) | 3, width // 3 :]
    first = images[0]
    yield first[None, :, :least, :least]
    yield torch.stack([first, first.flip(-1)])


def _shift(ours: Detections, theirs: Detections) -> float:
    if len(ours.boxes) != len(theirs.boxes) or not torch.equal(ours.classes, theirs.classes):
        return float("inf")
    return (ours.boxes - theirs.boxes).abs().max().item() if len(ours.boxes) else 0.0
