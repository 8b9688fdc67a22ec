import numpy as np
import torch

from wpl_d2.visualization import draw_boxes, heatmap, overlay

COLORS = [(200, 0, 0), (0, 100, 250)]


def test_overlay_colours_classes_and_leaves_void_alone():
    image = torch.full((3, 4, 6), 90, dtype=torch.uint8)
    image[0] = 150
    labels = torch.tensor([[0, 1, 255] * 2] * 4)
    result = overlay(image, labels, COLORS, opacity=0.5)
    assert result.shape == (3, 4, 6) and result.dtype == np.uint8
    assert result[:, 0, 0].tolist() == [155, 55, 55]  # the image's grey is 110
    assert result[:, 2, 1].tolist() == [55, 105, 180]
    assert result[:, 3, 5].tolist() == [150, 90, 90]


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
