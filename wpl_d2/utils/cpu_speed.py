"""Faster on CPUs, with the same results: nothing in this file is part of the method, and GPUs never run it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 2**16
"""Pixels per block: what is known of one block fits into a core's cache."""
_SMALL_MAP = 2**18
"""Numbers in the feature map of an image up to which moving its channels costs less than it gains."""


def label_map(scores: Tensor) -> Tensor:
    """`scores.argmax(dim=0)`, ten times as fast on a CPU.

    There `Tensor.argmax` over the first axis visits the class planes pixel by pixel; NumPy's passes over whole planes
    are cheaper, and start no threads.

    Args:
        scores: (C, H, W) float, C <= 255; compared as float32.

    Returns:
        (H, W) uint8 on the device of `scores`; the first class wins ties.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=0).to(torch.uint8)
    return _best_of_planes(scores)[1]


def best_class(scores: Tensor) -> tuple[Tensor, Tensor]:
    """`scores.max(dim=1)` without a gradient, ten times as fast on a CPU.

    Args:
        scores: (B, C, H, W) float32, C <= 255.

    Returns:
        (B, H, W) the largest score, and (B, H, W) int64 its class; the first class wins ties.
    """
    if scores.device.type != "cpu":
        best = scores.detach().max(dim=1)
        return best.values, best.indices
    values, labels = zip(*(_best_of_planes(image) for image in scores), strict=True)
    return torch.stack(values), torch.stack(labels).long()


def _best_of_planes(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest score of each pixel, (H, W) float32, and its class, (H, W) uint8, of scores (C, H, W)."""
    planes = scores.detach().float().contiguous().numpy()
    best, labels = planes[0].copy(), np.zeros(planes.shape[1:], dtype=np.uint8)
    planes, values, classes = planes.reshape(len(planes), -1), best.reshape(-1), labels.reshape(-1)
    for start in range(0, len(values), _BLOCK):
        block = slice(start, start + _BLOCK)
        top, own = values[block], classes[block]
        for number, plane in enumerate(planes[1:, block], 1):
            higher = np.greater(plane, top).view(np.uint8)
            np.maximum(plane, top, out=top)
            # The last class that was higher than all before it has the highest number.
            np.maximum(own, np.multiply(higher, np.uint8(number), out=higher), out=own)
    return torch.from_numpy(best), torch.from_numpy(labels)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest number of each row, five times as fast as `Tensor.topk` on a CPU (NumPy selects by AVX).

    Args:
        values: (..., N) int32, int64 or float32.
        k: from 1 to N.

    Returns:
        (..., 1).
    """
    if values.device.type != "cpu":
        return values.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    place = values.shape[-1] - k
    return torch.from_numpy(np.partition(values.numpy(), place, axis=-1)[..., place : place + 1])


def sort(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct keys (N,) int64 in ascending order, and this order, (N,) int64; five times as fast on a CPU."""
    if keys.device.type != "cpu":
        ordered = keys.sort()
        return ordered.values, ordered.indices
    order = torch.from_numpy(keys.numpy().argsort())
    return keys[order], order


def speed_up_on_cpu(model: nn.Module) -> None:
    """Make convolutions and group normalization of `model` faster on a CPU, in place. On GPUs nothing changes.

    - PyTorch's backward pass for depthwise convolutions is several times slower in bfloat16 than in float32, and slower
      with dilation than without. So in training they run in float32, and dilated ones as undilated convolutions of
      interleaved sub-grids.
    - With one thread PyTorch gives pointwise convolutions in float32 to MKL, unless they are dilated, which for a
      kernel of one pixel means nothing; oneDNN is up to three times as fast.
    - Group normalization of channels that lie last is several times slower than of planes; small maps are moved there
      and back.

    Args:
        model: any module; subclasses of `nn.Conv2d` are covered too.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = partial(_group_norm, module.forward)  # type: ignore[method-assign]
        if not isinstance(module, nn.Conv2d):
            continue
        if module.groups == module.in_channels > 1:
            module.forward = partial(_depthwise, module, module.forward)  # type: ignore[method-assign]
        elif (module.kernel_size, module.stride, module.padding) == ((1, 1), (1, 1), (0, 0)):
            module.forward = partial(_pointwise, module, module.forward)  # type: ignore[method-assign]


def _as_it_is(images: Tensor) -> bool:
    """Whether a layer runs unchanged: on a GPU, and to be exported or compiled."""
    return images.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling()


def _pointwise(conv: nn.Conv2d, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    if _as_it_is(images):
        return forward(images)
    conv.dilation = (2, 2)
    try:
        return forward(images)
    finally:
        conv.dilation = (1, 1)


def _group_norm(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    last = torch.channels_last
    if _as_it_is(images) or images[0].numel() > _SMALL_MAP or not images.is_contiguous(memory_format=last):
        return forward(images)
    return forward(images.contiguous()).contiguous(memory_format=last)


def _depthwise(conv: nn.Conv2d, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    if images.device.type != "cpu" or not torch.is_grad_enabled():
        return forward(images)
    with torch.autocast("cpu", enabled=False):
        images = images.to(conv.weight.dtype)
        return _on_subgrids(conv, images) if _is_plain_and_dilated(conv) else forward(images)


def _is_plain_and_dilated(conv: nn.Conv2d) -> bool:
    step, size = conv.dilation[0], conv.kernel_size[0]
    return (
        type(conv) is nn.Conv2d  # subclasses may pad, normalize or activate differently
        and step > 1
        and size % 2 == 1
        and conv.kernel_size == (size, size)
        and (conv.stride, conv.dilation, conv.padding) == ((1, 1), (step, step), (step * (size // 2),) * 2)
        and conv.padding_mode == "zeros"
    )


def _on_subgrids(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Compute a dilated convolution as undilated ones over every `dilation`-th row and column."""
    step = conv.dilation[0]
    height, width = images.shape[-2:]
    # Channels last, so that no copy below moves them apart.
    images = F.pad(images, (0, -width % step, 0, -height % step)).permute(0, 2, 3, 1)
    count, rows, columns, channels = images.shape
    grids = images.reshape(count, rows // step, step, columns // step, step, channels).permute(2, 4, 0, 1, 3, 5)
    grids = grids.reshape(-1, rows // step, columns // step, channels).permute(0, 3, 1, 2)
    grids = F.conv2d(grids, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=conv.groups)
    grids = grids.permute(0, 2, 3, 1).reshape(step, step, count, rows // step, columns // step, channels)
    images = grids.permute(2, 3, 0, 4, 1, 5).reshape(count, rows, columns, channels)
    return images[:, :height, :width].permute(0, 3, 1, 2)
