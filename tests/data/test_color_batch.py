import numpy as np
import pytest
import torch

from wpl_d2.data.transforms import color
from wpl_d2.data.transforms.color_batch import _OF_CHANNELS, _OF_COLORS, change_colors
from wpl_d2.data.transforms.photometric import IntensityView, JitterView

OPERATIONS = list(_OF_CHANNELS | _OF_COLORS)
# Levels that may differ, on average: hues turn in eight bits on the CPU.
LEVELS = {color.adjust_hue: 1.5, color.adjust_saturation: 0.5}


def pictures(count, size=(40, 50)):
    """(N, H, W, 3): smooth, with noise, not all of 0..255, and gray in part."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 180, size[0])[:, None, None] + np.linspace(0, 50, size[1])[:, None]
    colors = rng.uniform(0.2, 1, (count, 1, 1, 3))
    colors[0] = 0.5
    return (ramp * colors + rng.uniform(0, 20, (count, *size, 3))).astype(np.uint8)


def batched(images, drawn):
    found = change_colors(torch.from_numpy(images).permute(0, 3, 1, 2), drawn)
    assert found.dtype == torch.uint8
    return found.permute(0, 2, 3, 1).numpy()


def test_every_operation_that_views_draw_has_a_batched_one():
    jitter = JitterView((0.5, 0.5, 0.5, 0.25), 1.0, 1.0, 1.0, (0.1, 2.0))
    drawn = {operation for operation, _ in jitter.draw()}
    drawn |= {operation for operation, *_ in IntensityView(3, (0.1, 2.0)).operations}
    assert drawn - {color.identity} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_is_that_of_single_images(operation):
    ranges = {function: limits for function, *limits in IntensityView(3, (0.1, 2.0)).operations}
    low, high = ranges.get(operation, (0.0, 1.0))
    images = pictures(6)
    values = [low + (high - low) * share for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.999)]
    found = batched(images, [[(operation, value)] for value in values])
    for image, changed, value in zip(images, found, values, strict=True):
        difference = abs(operation(image, value).astype(int) - changed)
        assert difference.max() <= 8 * LEVELS.get(operation, 0.25)
        assert difference.mean() <= LEVELS.get(operation, 0.25)


@pytest.mark.parametrize(
    "view", [JitterView((0.5, 0.5, 0.5, 0.25), 0.8, 0.2, 0.5, (0.1, 2.0)), IntensityView(3, (0.1, 2.0))]
)
def test_each_image_has_its_own_operations_in_its_own_order(view):
    torch.manual_seed(0)
    images = pictures(24)
    before = images.copy()
    drawn = [view.draw() for _ in images]
    assert len({len(operations) for operations in drawn}) > 1
    found = batched(images, drawn)
    np.testing.assert_array_equal(images, before)
    for image, operations, changed in zip(images, drawn, found, strict=True):
        for operation, value in operations:
            image = operation(image, value)
        # What eight bits round, later operations enlarge.
        assert np.median(abs(image.astype(int) - changed)) <= 3


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_small_images(size):
    images = pictures(1, size)
    for operation in OPERATIONS:
        value = 4.0 if operation is color.posterize else 0.5
        expected = operation(images[0], value).astype(int)
        assert abs(batched(images, [[(operation, value)]])[0] - expected).max() <= 12, operation


def test_what_an_image_becomes_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    images = pictures(8)
    drawn = [IntensityView(3, (0.1, 2.0)).draw() for _ in images]
    together = batched(images, drawn)
    for place in range(8):
        alone = batched(images[place : place + 1], drawn[place : place + 1])
        assert abs(alone[0].astype(int) - together[place]).max() <= 1


def test_mixed_precision_changes_nothing():
    images = pictures(2)
    drawn = [[(operation, 4.0 if operation is color.posterize else 0.5)] for operation in OPERATIONS for _ in range(2)]
    pairs = [drawn[place : place + 2] for place in range(0, len(drawn), 2)]
    expected = [batched(images, pair) for pair in pairs]
    with torch.autocast("cpu", torch.bfloat16):
        for pair, views in zip(pairs, expected, strict=True):
            assert (batched(images, pair) == views).all(), pair


def value_for(operation):
    return {color.posterize: 4.0, color.solarize: 99.0}.get(operation, 0.5)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_floats_are_changed_as_bytes_are_and_not_rounded(operation):
    images = torch.from_numpy(pictures(3)).permute(0, 3, 1, 2)
    drawn = [[(operation, value_for(operation))]] * 3
    expected, found = change_colors(images, drawn).float(), change_colors(images.float(), drawn)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1.01
    fine = change_colors(images / 256, drawn)  # sixteen bits of which the high ones are empty
    if operation is color.posterize or operation is color.equalize:
        return  # these have few levels
    assert len(fine.unique()) > 100 or operation is color.solarize


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_colors_among_other_channels_are_changed_as_colors(operation):
    images = torch.from_numpy(pictures(2)).permute(0, 3, 1, 2).float()
    others = images.flip(-1)[:, :2] * 0.7
    many = torch.stack([images[:, 2], others[:, 0], images[:, 1], images[:, 0], others[:, 1]], dim=1)
    before, drawn = many.clone(), [[(operation, value_for(operation))]] * 2
    found = change_colors(many, drawn, (3, 2, 0))
    assert torch.equal(many, before)
    torch.testing.assert_close(found[:, [3, 2, 0]], change_colors(images, drawn), rtol=0, atol=1e-3)
    if operation in (color.adjust_saturation, color.adjust_hue, color.to_grayscale):
        assert torch.equal(found[:, [1, 4]], others)
    else:
        torch.testing.assert_close(found[:, [1, 4]], change_colors(others, drawn, None), rtol=0, atol=1e-3)
        assert (found[:, [1, 4]] != others).any()


def test_the_contrast_of_a_channel_that_is_no_color_is_to_its_own_mean():
    images = torch.tensor([10.0, 30.0, 100.0, 200.0]).view(1, 2, 1, 2)
    found = change_colors(images, [[(color.adjust_contrast, 0.5)]], None)
    assert found.flatten().tolist() == [15.0, 25.0, 125.0, 175.0]


@pytest.mark.parametrize(
    "view", [JitterView((0.5, 0.5, 0.5, 0.25), 1.0, 1.0, 1.0, (0.1, 2.0), None), IntensityView(9, (0.1, 2.0), None)]
)
def test_without_colors_none_are_changed(view):
    torch.manual_seed(0)
    drawn = {operation for _ in range(50) for operation, _ in view.draw()}
    assert drawn.isdisjoint({color.adjust_saturation, color.adjust_hue, color.to_grayscale})
    assert {color.adjust_brightness, color.adjust_contrast, color.gaussian_blur} <= drawn
    image = np.random.default_rng(0).random((12, 16, 5), np.float32)[:, ::-1] * 255
    changed = view(image)
    assert changed.shape == image.shape and changed.dtype == np.float32 and (changed != image).any()
