"""Faster on CPUs, with the same results: nothing in this file is part of the method, and GPUs never run it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 2**13
"""Pixels per block: the scores of one block fit into a core's cache."""


def label_map(scores: Tensor) -> Tensor:
    """`scores.argmax(dim=0)`, ten times as fast on a CPU.

    There `Tensor.argmax` over the first axis visits the class planes pixel by pixel; NumPy's passes over whole rows are
    cheaper, and start no threads.

    Args:
        scores: (C, H, W) float, C <= 255; compared as float32.

    Returns:
        (H, W) uint8 on the device of `scores`; the first class wins ties.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=0).to(torch.uint8)
    values = scores.detach().float().contiguous().numpy()
    classes = np.arange(len(values), dtype=np.uint8)[:, None, None]
    labels = np.empty(values.shape[1:], dtype=np.uint8)
    rows = max(1, _BLOCK // max(1, values.shape[2]))
    for top in range(0, values.shape[1], rows):
        part = values[:, top : top + rows]
        # 255 for classes below the maximum, the class id for the others: the minimum is the first winner. "Not less"
        # rather than "equal" gives pixels with NaN a class too.
        lost = np.less(part, part.max(axis=0)).view(np.uint8)
        np.negative(lost, out=lost)
        np.bitwise_or(lost, classes, out=lost).min(axis=0, out=labels[top : top + rows])
    return torch.from_numpy(labels)


def speed_up_depthwise(model: nn.Module) -> None:
    """Make the depthwise convolutions of `model` train faster on a CPU, in place.

    PyTorch's backward pass for them is several times slower in bfloat16 than in float32, and slower with dilation than
    without. So they run in float32, and dilated ones as undilated convolutions of interleaved sub-grids. On GPUs and
    without gradients nothing changes.

    Args:
        model: any module; subclasses of `nn.Conv2d` are covered too.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = partial(_forward, module, module.forward)  # type: ignore[method-assign]


def _forward(conv: nn.Conv2d, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
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
