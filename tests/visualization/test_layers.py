import numpy as np
import pytest
import torch

from wpl_d2.data.pixel_values import RGB, PixelLayout
from wpl_d2.visualization import draw_boxes, heatmap, optional_picture, overlay, render
from wpl_d2.visualization.preview import _cell

COLORS = [(200, 0, 0), (0, 100, 250)]


def test_overlay_colors_classes_and_leaves_void_alone():
    image = torch.full((3, 4, 6), 90, dtype=torch.uint8)
    image[0] = 150
    labels = torch.tensor([[0, 1, 255] * 2] * 4)
    result = overlay(image, labels, COLORS, opacity=0.5)
    assert result.shape == (3, 4, 6) and result.dtype == np.uint8
    assert result[:, 0, 0].tolist() == [155, 55, 55]  # the image's gray is 110
    assert result[:, 2, 1].tolist() == [55, 105, 180]
    assert result[:, 3, 5].tolist() == [150, 90, 90]


def test_overlay_is_the_mean_of_gray_and_color_of_any_pixel():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    labels = rng.integers(0, len(COLORS), (40, 50))
    for opacity in (0.33, 0.7):
        tint = np.asarray(COLORS, np.float32)[labels].transpose(2, 0, 1)
        expected = (1 - opacity) * image.astype(np.float32).mean(axis=0) + opacity * tint
        np.testing.assert_array_equal(overlay(image, labels, COLORS, opacity), expected.round().astype(np.uint8))


def test_heatmap_rises_in_brightness_and_clips():
    values = torch.tensor([[-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]])
    result = heatmap(values, maximum=2.0)
    assert result.shape == (3, 1, 6) and result.dtype == np.uint8
    brightness = result.astype(int).sum(0)[0]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] == brightness[1] < brightness[2] < brightness[3] < brightness[4] == brightness[5]
    assert result[0, 0, 3] > result[2, 0, 3]  # red above blue: RGB, not BGR


def test_boxes_are_outlined_half_open_and_named():
    image = np.zeros((3, 60, 80), np.uint8)
    result = draw_boxes(image, np.array([[10, 30, 40, 50]]), ["car"], [(0, 100, 250)])
    outline = (result == np.array([0, 100, 250])[:, None, None]).all(0)
    rows, columns = np.nonzero(outline[30:])
    assert (columns.min(), columns.max(), rows.max() + 30) == (10, 39, 49)
    assert not outline[35:45, 15:35].any()
    assert outline[12:29].any() and not image.any()


def test_name_of_a_box_in_the_corner_stays_inside():
    result = draw_boxes(np.zeros((3, 60, 80), np.uint8), [[70, 0, 80, 20]], ["elephant"], [(250, 250, 0)])
    filled = (result == np.array([250, 250, 0])[:, None, None]).all(0)
    assert filled[1:10, 20:40].any()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "box",
    [
        (10.2, 20, 10.6, 40),  # narrower than a pixel, as detectors find
        (10, 20, 10, 40),
        (10, 20.1, 30, 20.2),
        (79.9, 59.9, 80, 60),
        (0, 0, 0.5, 0.5),
        (30, 40, 10, 20),  # corners in the wrong order
        (-50, -50, 200, 200),
        (-INF, 5, INF, 9),
        (-1e30, -1e30, 1e30, 1e30),
    ],
)
def test_boxes_of_any_size_are_drawn(box):
    result = draw_boxes(np.zeros((3, 60, 80), np.uint8), [box, (50, 30, 70, 50)], ["narrow", "car"], COLORS)
    assert (result == np.array(COLORS[0])[:, None, None]).all(0).any()
    assert (result[:, 49, 60] == COLORS[1]).all()


@pytest.mark.parametrize(
    "box",
    [(90, 10, 95, 20), (10, -30, 20, -10), (80, 0, 90, 10), (NAN, 10, 20, 30), (10, 10, 20, NAN), (INF, 0, INF, 9)],
)
def test_boxes_outside_and_none_are_left_out(box):
    image = np.zeros((3, 60, 80), np.uint8)
    both = draw_boxes(image, [box, (50, 30, 70, 50)], ["none", "car"], COLORS)
    np.testing.assert_array_equal(both, draw_boxes(image, [(50, 30, 70, 50)], ["car"], COLORS[1:]))
    np.testing.assert_array_equal(draw_boxes(image, np.zeros((0, 4)), [], []), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3)])
def test_images_of_any_size_are_drawn(size):
    image = np.full((3, *size), 90, np.uint8)
    result = draw_boxes(image, [(0, 0, size[1], size[0]), (0.2, 0.2, 0.3, 0.3)], ["elephant nan", ""], COLORS)
    assert result.shape == image.shape
    assert overlay(image, np.zeros(size, np.uint8), COLORS).shape == image.shape
    assert min(_cell(result).size) >= 1


def test_a_picture_that_fails_is_said_and_ends_nothing(caplog):
    with optional_picture("the preview"):
        raise ValueError("x1 must be greater than or equal to x0")
    assert "the preview: could not be drawn" in caplog.text and "x1 must be" in caplog.text
    with pytest.raises(KeyboardInterrupt), optional_picture("the preview"):
        raise KeyboardInterrupt


def test_channels_called_red_green_and_blue_are_shown_else_the_first_three_or_gray():
    image = np.arange(5, dtype=np.float32)[:, None, None] * 50.4
    shown = {
        ("nir", "Blue", "green", "red", "swir"): [151, 101, 50],
        ("a", "b", "c", "d", "e"): [0, 50, 101],
    }
    for names, colors in shown.items():
        assert render(image, PixelLayout(names)).flatten().tolist() == colors
    gray = render(image[1:3], PixelLayout(("sar", "depth")))
    assert gray.dtype == np.uint8 and gray.flatten().tolist() == [50, 50, 50]
    colors = np.zeros((3, 4, 5), np.uint8)
    assert render(colors, RGB) is colors
