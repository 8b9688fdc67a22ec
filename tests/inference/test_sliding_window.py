"""The ways of predicting, around a convolution: near a window's border it sees zeros, so windows matter."""

import math
import weakref

import pytest
import torch
import torch.nn.functional as F

from wpl_d2.inference.sliding_window import CenterCrop, SlidingWindow, center_window
from wpl_d2.inference.tta import PredictWithTTA

FILL = (120.0, 110.0, 100.0)


@pytest.fixture
def predict():
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 5, 5) / 500
    return lambda images: F.conv2d(images, weight, padding=2)


def image(height, width, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


def truncated(predict, images, crop, stride):
    """UniMatch's and AugSeg's rule: windows cut off at the border, softmax summed."""
    height, width = images.shape[-2:]
    total, count = torch.zeros(2, 4, height, width), torch.zeros(height, width)
    y = 0
    while y < height:
        x = 0
        while x < width:
            window = images[:, :, y : min(y + crop[0], height), x : min(x + crop[1], width)]
            total[:, :, y : y + crop[0], x : x + crop[1]] += predict(window).softmax(1)
            count[y : y + crop[0], x : x + crop[1]] += 1
            x += stride[1]
        y += stride[0]
    return total / count


def shifted(predict, images, crop, stride, votes):
    """U2PL's and AEL's: padded to the window around the image, the last window moved inside."""
    height, width = images.shape[-2:]
    more_y, more_x = max(crop[0] - height, 0), max(crop[1] - width, 0)
    borders = (more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2)
    mean = torch.tensor(FILL)[:, None, None]
    padded = F.pad(images - mean, borders) + mean
    new_height, new_width = padded.shape[-2:]
    total, count = torch.zeros(2, 4, new_height, new_width), torch.zeros(new_height, new_width)
    for i in range(math.ceil((new_height - crop[0]) / stride[0]) + 1):
        for j in range(math.ceil((new_width - crop[1]) / stride[1]) + 1):
            bottom, right = min(i * stride[0] + crop[0], new_height), min(j * stride[1] + crop[1], new_width)
            area = (slice(bottom - crop[0], bottom), slice(right - crop[1], right))
            total[(..., *area)] += votes(predict(padded[(..., *area)]))
            count[area] += 1
    return (total / count)[..., more_y // 2 :, more_x // 2 :][..., :height, :width]


SIZES = [(37, 53), (24, 32), (17, 53), (37, 11), (9, 7), (25, 33)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_truncated_windows_match_plain_loops(predict, size, batch):
    images, crop, stride = image(*size), (24, 32), (16, 21)
    slide = SlidingWindow(predict, crop, stride, "truncate", "probability", batch, FILL)
    torch.testing.assert_close(slide(images).softmax(1), truncated(predict, images, crop, stride))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("average", ["probability", "logit"])
def test_shifted_windows_match_plain_loops(predict, size, average):
    images, crop, stride = image(*size), (24, 32), (16, 22)
    found = SlidingWindow(predict, crop, stride, "shift", average, 3, FILL)(images)
    if average == "probability":
        expected = shifted(predict, images, crop, stride, lambda logits: logits.softmax(1))
        torch.testing.assert_close(found.softmax(1), expected)
    else:
        torch.testing.assert_close(found, shifted(predict, images, crop, stride, lambda logits: logits))


def test_published_grid_of_cityscapes(predict):
    """UniMatch at 801 and stride 534 on 1024x2048: 2 x 4 windows; U2PL at 769 and 513: 2 x 4, all of full size."""
    sizes = []

    def note(images):
        sizes.append(tuple(images.shape[-2:]))
        return images.new_zeros(len(images), 1, *images.shape[-2:])

    whole = torch.zeros(1, 3, 1024, 2048)
    SlidingWindow(note, (801, 801), (534, 534), "truncate")(whole)
    assert sorted(sizes) == sorted([(801, 801)] * 3 + [(801, 446)] + [(490, 801)] * 3 + [(490, 446)])
    sizes.clear()
    SlidingWindow(note, (769, 769), (513, 513), "shift")(whole)
    assert sizes == [(769, 769)] * 8


@pytest.mark.parametrize("border", ["shift", "truncate"])
def test_one_window_of_the_images_size_is_the_whole_image(predict, border):
    images = image(21, 34)
    slide = SlidingWindow(predict, (21, 34), (21, 34), border, "logit")
    torch.testing.assert_close(slide(images), predict(images), rtol=0, atol=0)


def test_only_one_batch_of_windows_is_held(predict):
    alive, most, images = [], 0, image(60, 60)

    def watched(windows):
        nonlocal most
        assert len(windows) <= 4 * len(images)
        most = max(most, sum(reference() is not None for reference in alive))
        logits = predict(windows)
        alive.append(weakref.ref(logits))
        return logits

    SlidingWindow(watched, (16, 16), (8, 8), "shift", "probability", 4)(images)
    assert len(alive) == math.ceil(7 * 7 / 4)
    assert most == 0  # when the next windows are predicted, the logits of the ones before are gone


def test_a_certain_model_stays_finite():
    slide = SlidingWindow(lambda images: images * 1e4, (8, 8), (4, 4))
    assert slide(image(12, 12)).isfinite().all()


def test_flip_of_a_symmetric_model_changes_nothing():
    symmetric = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)) / 500
    symmetric = symmetric + symmetric.flip(-1)
    images = image(20, 27)
    plain = F.conv2d(images, symmetric, padding=2)
    flipped = PredictWithTTA(lambda x: F.conv2d(x, symmetric, padding=2), flip=True, average="logit")
    torch.testing.assert_close(flipped(images), plain)


def test_flip_averages_both_views(predict):
    images = image(20, 27)
    expected = (predict(images).softmax(1) + predict(images.flip(-1)).flip(-1).softmax(1)) / 2
    torch.testing.assert_close(PredictWithTTA(predict, flip=True)(images).softmax(1), expected)


def test_scale_one_is_the_plain_prediction(predict):
    images = image(20, 27)
    torch.testing.assert_close(PredictWithTTA(predict, (1.0, 1.0), average="logit")(images), predict(images))


def test_scales_are_averaged_at_the_images_size(predict):
    images, expected = image(20, 27), 0
    for size in ((10, 14), (20, 27), (30, 40)):  # 27 * 0.5 and * 1.5, rounded
        view = F.interpolate(images, size, mode="bilinear", antialias=True)
        expected += F.interpolate(predict(view), (20, 27), mode="bilinear") / 3
    torch.testing.assert_close(PredictWithTTA(predict, (0.5, 1.0, 1.5), average="logit")(images), expected)


def test_what_the_inner_one_returns_is_not_written_to():
    images = image(16, 16)
    before = images.clone()
    PredictWithTTA(lambda views: views, (1.0, 1.0), average="logit")(images)
    SlidingWindow(lambda views: views, (16, 16), (8, 8), average="logit")(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [(30, 41), (13, 41), (12, 9)])
def test_centre_crop(predict, size):
    images, crop = image(*size), (14, 17)
    found = CenterCrop(predict, crop, FILL)(images)
    top, left = max(0, (size[0] - 14) // 2), max(0, (size[1] - 17) // 2)
    part = images[..., top : top + 14, left : left + 17]
    height, width = part.shape[-2:]
    canvas = torch.tensor(FILL).view(1, 3, 1, 1).repeat(2, 1, 14, 17)
    y, x = (14 - height) // 2, (17 - width) // 2
    canvas[..., y : y + height, x : x + width] = part
    expected = torch.zeros(2, 4, *size)
    expected[..., top : top + height, left : left + width] = predict(canvas)[..., y : y + height, x : x + width]
    torch.testing.assert_close(found, expected)
    assert center_window(size, crop) == (slice(top, top + height), slice(left, left + width))
