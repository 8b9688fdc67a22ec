import copy

import numpy as np
import pytest
import torch
from torch import nn

from wpl_d2.modeling import build_model
from wpl_d2.utils.cpu_speed import best_class, kth_largest, label_map, speed_up_on_cpu


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 5)])
@pytest.mark.parametrize("kernel, dilation", [(5, 2), (3, 2), (3, 6)])
def test_dilated_depthwise_is_the_same_function(kernel, dilation, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=6)
    fast = copy.deepcopy(plain)
    speed_up_on_cpu(fast)
    results = []
    for conv in (plain, fast):
        images = torch.linspace(-1, 1, 2 * 6 * size[0] * size[1]).view(2, 6, *size).requires_grad_()
        output = conv(images)
        output.square().sum().backward()
        results.append((output, images.grad, conv.weight.grad, conv.bias.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 0, "dilation": 2},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2},
        {"kernel_size": (3, 1), "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "padding_mode": "reflect"},
    ],
)
def test_other_depthwise_convolutions_are_left_as_they_are(options):
    plain = nn.Conv2d(4, 8, groups=4, **options)
    fast = copy.deepcopy(plain)
    speed_up_on_cpu(fast)
    images = torch.rand(1, 4, 9, 9)
    assert torch.equal(fast(images), plain(images))


def test_training_is_in_float32_and_inference_in_the_type_asked_for():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    speed_up_on_cpu(conv)
    images = torch.rand(1, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(images).dtype == torch.float32
        with torch.no_grad():
            assert conv(images).dtype == torch.bfloat16


def test_a_copy_computes_with_its_own_weights():
    conv = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    speed_up_on_cpu(conv)
    copied = copy.deepcopy(conv)
    nn.init.zeros_(copied.weight)
    nn.init.zeros_(copied.bias)
    images = torch.rand(1, 4, 5, 5)
    assert conv(images).count_nonzero() and not copied(images).count_nonzero()
    with torch.no_grad():
        assert conv(images).count_nonzero() and not copied(images).count_nonzero()


def test_a_built_model_keeps_channels_last(make_cfg):
    model = build_model(make_cfg("MODEL.TIMM.NAME", "tf_efficientnet_lite0"))
    features = model.encode(torch.rand(1, 3, 64, 64))
    features["embedding"] = model.decode(features, (64, 64)).embedding
    for feature in features.values():
        assert feature.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(19, 130, 257), (1, 3, 4), (255, 40, 7), (4, 2, 9001)])
def test_label_map_is_argmax_with_the_first_of_ties(shape):
    generator = torch.Generator().manual_seed(0)
    for scores in (torch.randn(shape, generator=generator), torch.randint(0, 3, shape, generator=generator).float()):
        expected = scores.numpy().argmax(axis=0)
        np.testing.assert_array_equal(label_map(scores).numpy(), expected)
        columns_first = scores.transpose(1, 2).contiguous().transpose(1, 2)
        np.testing.assert_array_equal(label_map(columns_first).numpy(), expected)


def test_label_map_of_a_diverged_model_has_classes_only():
    scores = torch.full((3, 4, 5), torch.nan)
    scores[1, 0] = 1
    assert label_map(scores).max() < 3
    assert (label_map(torch.full((3, 4, 5), -torch.inf)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_the_kth_largest_is_that_of_the_sorted_row(dtype):
    torch.manual_seed(0)
    values = torch.randint(-1000, 1000, (3, 4, 50)).to(dtype)
    before = values.clone()
    ordered = values.sort(dim=-1, descending=True).values
    for k in (1, 7, 50):
        assert torch.equal(kth_largest(values, k), ordered[..., k - 1 : k])
    assert torch.equal(values, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_best_class_is_the_first_of_the_largest_scores(layout):
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (2, 5, 30, 41)).float().to(memory_format=layout)
    expected = scores.max(dim=1)
    values, classes = best_class(scores)
    assert torch.equal(values, expected.values)
    assert torch.equal(classes, expected.indices)


@pytest.mark.parametrize("autocast", [False, True])
def test_pointwise_is_the_same_function_and_keeps_its_dilation(autocast):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 5, 1)
    fast = copy.deepcopy(plain)
    speed_up_on_cpu(fast)
    results = []
    for conv in (plain, fast):
        images = torch.linspace(-1, 1, 2 * 6 * 9 * 8).view(2, 6, 9, 8).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = conv(images)
        output.float().square().sum().backward()
        results.append((output, images.grad, conv.weight.grad, conv.bias.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert fast.dilation == (1, 1)


def test_a_traced_pointwise_convolution_has_no_dilation():
    conv = nn.Conv2d(2, 2, 1)
    speed_up_on_cpu(conv)
    traced = torch.jit.trace(conv, torch.rand(1, 2, 4, 4))
    assert "value=2]" not in str(traced.inlined_graph)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_normalization_is_the_same_function_and_keeps_the_layout(layout):
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, 8)
    nn.init.normal_(plain.weight)
    fast = copy.deepcopy(plain)
    speed_up_on_cpu(fast)
    images = torch.randn(2, 8, 9, 7)
    results = []
    for norm in (plain, fast):
        own = images.to(memory_format=layout).requires_grad_()
        output = norm(own)
        output.pow(3).sum().backward()
        results.append((output, own.grad, norm.weight.grad, norm.bias.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
        assert found.stride() == expected.stride()
