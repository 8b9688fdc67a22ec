import numpy as np
import pytest
import torch

from wpl_d2.data.transforms import color
from wpl_d2.data.transforms.color_batch import _BATCHED, change_colors
from wpl_d2.data.transforms.photometric import IntensityView, JitterView

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
    assert drawn - {color.identity} == set(_BATCHED)


@pytest.mark.parametrize("operation", _BATCHED, ids=lambda operation: operation.__name__)
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
    for operation in _BATCHED:
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
    drawn = [[(operation, 4.0 if operation is color.posterize else 0.5)] for operation in _BATCHED for _ in range(2)]
    pairs = [drawn[place : place + 2] for place in range(0, len(drawn), 2)]
    expected = [batched(images, pair) for pair in pairs]
    with torch.autocast("cpu", torch.bfloat16):
        for pair, views in zip(pairs, expected, strict=True):
            assert (batched(images, pair) == views).all(), pair
