import pytest
import torch
from torch import nn

from wpl_d2.benchmark.floor import count_flops, count_operations, peak_flops


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_counts_once_forward_and_for_each_gradient(groups):
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups, bias=False)
    images = torch.randn(2, 8, 9, 10)
    forward = 2 * (2 * 16 * 5 * 5) * (8 // groups * 9)
    assert count_flops(lambda: conv(images)) == forward
    assert count_flops(lambda: conv(images).sum().backward()) == 2 * forward  # none for the images
    images.requires_grad_()
    assert count_flops(lambda: conv(images).sum().backward()) == 3 * forward


def test_matrix_products_count_and_the_peak_is_a_speed():
    left, right = torch.randn(3, 5), torch.randn(5, 7)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert peak_flops("cpu", torch.float32, repeats=1) > 1e8


def test_operations_that_start_no_kernel_do_not_count():
    maps = torch.randn(2, 3, 4)
    assert count_operations(lambda: (maps[0] + 1).mul_(2).T.contiguous()) == 3
    assert count_operations(lambda: torch.empty_like(maps).split(1)) == 0
