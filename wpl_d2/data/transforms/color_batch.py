"""The operations of `color` on the model's device: for a batch, each image with operations and values of its own.

Nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor

from . import color
from .photometric import Operation, Operations


def change_colors(images: Tensor, drawn: Sequence[Operations]) -> Tensor:
    """Do to each image what was drawn for it.

    Args:
        images: (N, 3, H, W) uint8 RGB.
        drawn: N lists of operations, see `StrongView.draw`.

    Returns:
        (N, 3, H, W) uint8; the images stay as they are.
    """
    changed = images.float().contiguous()
    for step in zip_longest(*drawn, fillvalue=(color.identity, 0.0)):
        groups: dict[Operation, list[int]] = {}
        for place, (operation, _) in enumerate(step):
            groups.setdefault(operation, []).append(place)
        groups.pop(color.identity, None)
        for operation, places in groups.items():
            index = _to_device(torch.tensor(places), images.device)
            values = torch.tensor([step[place][1] for place in places], dtype=torch.float64)
            # Views are made inside of a step, whose mixed precision would blur in 16 bits.
            with torch.autocast(images.device.type, enabled=False):
                found = _BATCHED[operation](changed[index], values)
            # Whole values after each operation, as on bytes.
            changed.index_copy_(0, index, found.clamp(0, 255).floor_())
    return changed.to(torch.uint8)


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy small values without waiting."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def _factors(values: Tensor, images: Tensor) -> Tensor:
    """One factor an image, (N, 1, 1, 1)."""
    return _to_device(values.float(), images.device).view(-1, 1, 1, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round_()


def _brightness(images: Tensor, values: Tensor) -> Tensor:
    return images * _factors(values, images)


def _contrast(images: Tensor, values: Tensor) -> Tensor:
    return torch.lerp(_gray(images).mean((1, 2, 3), keepdim=True), images, _factors(values, images))


def _saturation(images: Tensor, values: Tensor) -> Tensor:
    return torch.lerp(_gray(images).expand_as(images), images, _factors(values, images))


def _hue(images: Tensor, values: Tensor) -> Tensor:
    """By hue, in sixths of the circle, chroma and value: a channel is `value - chroma * share`."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = chroma.clamp(min=1)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * _factors(values, images)[:, 0]
    turns = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    place = (hue[:, None] + _to_device(turns, images.device)).remainder(6)
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return (value[:, None] - chroma[:, None] * share).round_()


def _grayscale(images: Tensor, values: Tensor) -> Tensor:
    return _gray(images).expand_as(images)


def _blur(images: Tensor, values: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    radius = min(math.ceil(3 * float(values.max())), min(height, width) - 1)
    places = torch.arange(-radius, radius + 1)
    kernels = torch.exp(-0.5 * (places / values[:, None]) ** 2)
    # As `color.gaussian_blur`, whose kernel ends where it is small.
    kernels = kernels * (places.abs() <= (3 * values[:, None]).ceil())
    kernels = (kernels / kernels.sum(1, keepdim=True)).float().repeat_interleave(channels, 0)
    kernels = _to_device(kernels, images.device)
    groups = count * channels
    planes = F.pad(images, (radius,) * 4, mode="reflect").reshape(1, groups, height + 2 * radius, -1)
    rows = F.conv2d(planes, kernels[:, None, None], groups=groups)
    return F.conv2d(rows, kernels[:, None, :, None], groups=groups).reshape(images.shape).round_()


def _sharpness(images: Tensor, values: Tensor) -> Tensor:
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        around = F.avg_pool2d(images, 3, stride=1) * 9
        smooth[..., 1:-1, 1:-1] = ((around + 4 * images[..., 1:-1, 1:-1]) / 13).round_()
    return torch.lerp(smooth, images, _factors(values, images))


def _autocontrast(images: Tensor, values: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    stretched = (images - low) * 255 / (high - low).clamp(min=1)
    return torch.where(high > low, stretched + 1e-3, images)  # whole results stay whole


def _equalize(images: Tensor, values: Tensor) -> Tensor:
    """PIL's scheme: a level becomes the share of the pixels below it, in steps; too few of them change nothing."""
    levels = images.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    below = counts.cumsum(2) - counts
    last = torch.gather(counts, 2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    table = (below + step // 2) // step.clamp(min=1)
    changed = torch.gather(table.clamp(max=255), 2, levels).view_as(images)
    return torch.where((step > 0)[..., None], changed.float(), images)


def _posterize(images: Tensor, values: Tensor) -> Tensor:
    size = _factors(2 ** (8 - values.floor()), images)
    return (images / size).floor_() * size


def _solarize(images: Tensor, values: Tensor) -> Tensor:
    return torch.where(images >= _factors(values.floor(), images), 255 - images, images)


_BATCHED: dict[Operation, Callable[[Tensor, Tensor], Tensor]] = {
    color.adjust_brightness: _brightness,
    color.adjust_contrast: _contrast,
    color.adjust_hue: _hue,
    color.adjust_saturation: _saturation,
    color.adjust_sharpness: _sharpness,
    color.autocontrast: _autocontrast,
    color.equalize: _equalize,
    color.gaussian_blur: _blur,
    color.posterize: _posterize,
    color.solarize: _solarize,
    color.to_grayscale: _grayscale,
}
"""Images (N, 3, H, W) float of whole values 0..255, and a value for each (N,) float64 on the CPU, to images."""
