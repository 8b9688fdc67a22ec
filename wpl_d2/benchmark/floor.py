"""How far a step is from what the machine could do: its FLOPs at the speed of a large product or convolution."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_SIDE = 2048
_CHANNELS, _PIXELS = 256, 64


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and matrix products in a call, backward passes among them."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward}) as counter:
        call()
    return counter.get_total_flops()


def _backward(
    grad: Sequence[int], images: Sequence[int], weight: Sequence[int], *further: Any, out_shape: Any, **_: Any
) -> int:
    """As many as forward for each gradient that is asked for; PyTorch's own count takes no note of groups."""
    output_mask = further[-1]
    return 2 * math.prod(grad) * math.prod(weight[1:]) * sum(output_mask[:2])


class _OperationCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "empty" in func.__name__)
        return func(*args, **(kwargs or {}))


def count_operations(call: Callable[[], Any]) -> int:
    """PyTorch's operations in a call that start at least one kernel: all but views and allocations.

    Where kernels are small, a GPU waits for the host, and their number is the time.
    """
    with _OperationCounter() as counter:
        call()
    return counter.count


def peak_flops(device: str, dtype: torch.dtype, repeats: int = 7) -> float:
    """FLOPs a second of what is faster: a product of matrices of 2048 rows, or a 3x3 convolution of 256 channels.

    Libraries differ: on one machine a convolution in float32 had 2.5 times the speed of a product.

    Args:
        device: such as "cpu".
        dtype: of the matrices and images.
        repeats: measured calls of each, of which the middle one counts.
    """
    left, right = torch.randn(2, _SIDE, _SIDE, device=device).to(dtype).unbind()
    images = torch.randn(4, _CHANNELS, _PIXELS, _PIXELS, device=device)
    kernel = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=device)
    images, kernel = (maps.to(dtype, memory_format=torch.channels_last) for maps in (images, kernel))
    calls = (lambda: left @ right, lambda: F.conv2d(images, kernel, padding=1))
    speeds = [_speed(call, device, repeats) for call in calls]
    return max(speeds)


def now(device: torch.device | str) -> float:
    """Seconds, when a GPU has done its work; with one CPU thread its own time, so that others may use the machine."""
    if torch.device(device).type != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _speed(call: Callable[[], Any], device: str, repeats: int) -> float:
    # Many at a time on a GPU, where one takes less than its launch.
    count = 1 if device == "cpu" else 50
    times = []
    for _ in range(repeats + 2):
        start = now(device)
        for _ in range(count):
            call()
        times.append((now(device) - start) / count)
    return count_flops(call) / statistics.median(times[2:])
