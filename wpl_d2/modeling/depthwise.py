"""Depthwise convolutions that train fast on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def speed_up_depthwise(model: nn.Module) -> None:
    """Let the depthwise convolutions of `model` train on a CPU in the way that is fast there, in place.

    Their backward pass takes several times as long in bfloat16 as in float32, and with dilation as without it on the
    sub-grids that a dilation leaves apart. On GPUs, and where no gradients are wanted, nothing changes.

    Args:
        model: of any architecture, its convolutions of any subclass of `nn.Conv2d`.
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
        type(conv) is nn.Conv2d  # subclasses pad, normalize or activate in ways of their own
        and step > 1
        and size % 2 == 1
        and conv.kernel_size == (size, size)
        and (conv.stride, conv.dilation, conv.padding) == ((1, 1), (step, step), (step * (size // 2),) * 2)
        and conv.padding_mode == "zeros"
    )


def _on_subgrids(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """A dilated convolution as one without dilation on every `dilation`-th row and column."""
    step = conv.dilation[0]
    height, width = images.shape[-2:]
    # Channels go last, so that no copy here moves them apart.
    images = F.pad(images, (0, -width % step, 0, -height % step)).permute(0, 2, 3, 1)
    count, rows, columns, channels = images.shape
    grids = images.reshape(count, rows // step, step, columns // step, step, channels).permute(2, 4, 0, 1, 3, 5)
    grids = grids.reshape(-1, rows // step, columns // step, channels).permute(0, 3, 1, 2)
    grids = F.conv2d(grids, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=conv.groups)
    grids = grids.permute(0, 2, 3, 1).reshape(step, step, count, rows // step, columns // step, channels)
    images = grids.permute(2, 3, 0, 4, 1, 5).reshape(count, rows, columns, channels)
    return images[:, :height, :width].permute(0, 3, 1, 2)
