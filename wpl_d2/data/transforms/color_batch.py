"""The operations of `color` on the model's device: for a batch, each image with operations and values of its own.

Nothing waits for the device. Images may have any number of channels. Brightness, sharpness, blur, autocontrast,
equalize, posterize and solarize do the same to each of them. Contrast is that to the mean gray value for red, green and
blue, and to its own mean for any other channel. Saturation, hue and grayscale change red, green and blue alone. Images
of bytes have whole values after each operation; those of floats are not rounded, but equalize knows 256 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor

from . import color
from .color import Operation, Operations

Places = tuple[int, int, int]
"""Those of red, green and blue among the channels of an image."""

RGB: Places = (0, 1, 2)


def change_colors(images: Tensor, drawn: Sequence[Operations], rgb: Places | None = RGB) -> Tensor:
    """Do to each image what was drawn for it.

    Args:
        images: (N, C, H, W) uint8, or float in 0..255.
        drawn: N lists of operations, see `StrongView.draw`.
        rgb: the channels that are red, green and blue; None if there are no colors.

    Returns:
        (N, C, H, W) of the images' type; the images stay as they are.
    """
    whole = images.dtype == torch.uint8
    changed = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
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
                found = _change(operation, changed[index], values, rgb, whole).clamp(0, 255)
            changed.index_copy_(0, index, found.floor_() if whole else found)
    return changed.to(images.dtype)


def needs_colors(operation: Operation) -> bool:
    """Whether an operation changes nothing of images without red, green and blue."""
    return operation in _OF_COLORS and operation not in _OF_CHANNELS


def _change(operation: Operation, images: Tensor, values: Tensor, rgb: Places | None, whole: bool) -> Tensor:
    colored = _OF_COLORS.get(operation)
    if colored is not None and rgb == RGB and images.shape[1] == len(RGB):
        return colored(images, values, whole)
    found = _OF_CHANNELS[operation](images, values, whole) if operation in _OF_CHANNELS else images
    if colored is None or rgb is None:
        return found
    # By places, since an index of them would be copied to the device.
    colors = colored(torch.stack([images[:, place] for place in rgb], dim=1), values, whole)
    planes = list(found.unbind(1))
    for place, plane in zip(rgb, colors.unbind(1), strict=True):
        planes[place] = plane
    return torch.stack(planes, dim=1)


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy small values without waiting."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def _factors(values: Tensor, images: Tensor) -> Tensor:
    """One factor an image, (N, 1, 1, 1)."""
    return _to_device(values.float(), images.device).view(-1, 1, 1, 1)


def _round(images: Tensor, whole: bool) -> Tensor:
    """To whole values, in place, if that is what the images have."""
    return images.round_() if whole else images


def _gray(images: Tensor, whole: bool) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return _round(0.299 * red + 0.587 * green + 0.114 * blue, whole)


def _brightness(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return images * _factors(values, images)


def _contrast(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return torch.lerp(_gray(images, whole).mean((1, 2, 3), keepdim=True), images, _factors(values, images))


def _contrast_of_channels(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return torch.lerp(images.mean((2, 3), keepdim=True), images, _factors(values, images))


def _saturation(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return torch.lerp(_gray(images, whole).expand_as(images), images, _factors(values, images))


def _hue(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    """By hue, in sixths of the circle, chroma and value: a channel is `value - chroma * share`."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = chroma.clamp(min=1 if whole else 1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * _factors(values, images)[:, 0]
    turns = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    place = (hue[:, None] + _to_device(turns, images.device)).remainder(6)
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return _round(value[:, None] - chroma[:, None] * share, whole)


def _grayscale(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return _gray(images, whole).expand_as(images)


def _blur(images: Tensor, values: Tensor, whole: bool) -> Tensor:
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
    return _round(F.conv2d(rows, kernels[:, None, :, None], groups=groups).reshape(images.shape), whole)


def _sharpness(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        around = F.avg_pool2d(images, 3, stride=1) * 9
        smooth[..., 1:-1, 1:-1] = _round((around + 4 * images[..., 1:-1, 1:-1]) / 13, whole)
    return torch.lerp(smooth, images, _factors(values, images))


def _autocontrast(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    stretched = (images - low) * 255 / (high - low).clamp(min=1 if whole else 1e-6)
    return torch.where(high > low, stretched + 1e-3 if whole else stretched, images)  # whole results stay whole


def _equalize(images: Tensor, values: Tensor, whole: bool) -> Tensor:
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


def _posterize(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    size = _factors(2 ** (8 - values.floor()), images)
    return (images / size).floor_() * size


def _solarize(images: Tensor, values: Tensor, whole: bool) -> Tensor:
    return torch.where(images >= _factors(values.floor(), images), 255 - images, images)


Batched = Callable[[Tensor, Tensor, bool], Tensor]
"""Images (N, C, H, W) float in 0..255, a value for each (N,) float64 on the CPU, and if they are whole, to images."""

_OF_COLORS: dict[Operation, Batched] = {
    color.adjust_contrast: _contrast,
    color.adjust_hue: _hue,
    color.adjust_saturation: _saturation,
    color.to_grayscale: _grayscale,
}
"""What regards red, green and blue together."""

_OF_CHANNELS: dict[Operation, Batched] = {
    color.adjust_brightness: _brightness,
    color.adjust_contrast: _contrast_of_channels,
    color.adjust_sharpness: _sharpness,
    color.autocontrast: _autocontrast,
    color.equalize: _equalize,
    color.gaussian_blur: _blur,
    color.posterize: _posterize,
    color.solarize: _solarize,
}
