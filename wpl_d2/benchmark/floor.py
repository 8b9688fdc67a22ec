"""How far a step is from what the machine could do: its FLOPs at the speed of a large matrix product."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_SIDE = 2048


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


def peak_flops(device: str, dtype: torch.dtype, repeats: int = 7) -> float:
    """FLOPs a second of a product of two square matrices of 2048 rows, the median of some.

    Args:
        device: such as "cpu".
        dtype: of the matrices.
        repeats: measured products.
    """
    left, right = torch.randn(2, _SIDE, _SIDE, device=device).to(dtype).unbind()
    # Many at a time on a GPU, where one takes less than its launch.
    count = 1 if device == "cpu" else 50
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        for _ in range(count):
            left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / count)
    return 2 * _SIDE**3 / statistics.median(times[2:])
