"""Drawing shapes: against pycocotools on the whole image, and the rules for what lies where."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from wpl_d2.data.labels import LabeledImage, Region, Shape, rasterize
from wpl_d2.data.labels.shapes import ellipse, rectangle, turn
from wpl_d2.utils.errors import InputError

IDS = {"cat": 1, "dog": 2, "sofa": 255}
SIZE = (40, 50)


def draw(*shapes, uncovered=0, **fields):
    return rasterize(LabeledImage(shapes, "a.json, image 'a.jpg'", **fields), SIZE, IDS, uncovered)


def cat(*parts, **fields):
    return Shape("cat", parts, **fields)


def dog(*parts, **fields):
    return Shape("dog", parts, **fields)


def brute_force_box(pixels):
    rows, columns = np.nonzero(pixels)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("seed", range(8))
def test_polygons_are_those_of_coco_tools(seed):
    rng = np.random.default_rng(seed)
    for corners in rng.integers(3, 12, 60):
        # Two decimals, as in COCO's files: many corners lie halfway between the steps that are rounded to.
        points = rng.uniform((-30, -30), (80, 70), (corners, 2)).round(2)
        expected = coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], *SIZE)[0])
        labels = draw(cat(points))
        np.testing.assert_array_equal(labels.mask, expected)
        boxes = [brute_force_box(expected)] if expected.any() else np.zeros((0, 4))
        np.testing.assert_array_equal(labels.boxes, boxes)


def test_pixels_are_inside_by_their_centers():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for _ in range(20):
        points = rng.uniform((0, 0), (50, 40), (3, 2))
        edges = np.roll(points, -1, axis=0) - points
        edges /= np.linalg.norm(edges, axis=1, keepdims=True)
        sides = np.array([(x - x0) * dy - (y - y0) * dx for (x0, y0), (dx, dy) in zip(points, edges, strict=True)])
        inside = (sides > 0).all(axis=0) | (sides < 0).all(axis=0)
        clear = abs(sides).min(axis=0) > 0.15
        np.testing.assert_array_equal(draw(cat(points)).mask[clear], inside[clear])


def test_what_a_polygon_goes_around_twice_is_outside():
    angles = np.pi * 0.8 * np.arange(5)
    star = np.stack([25 + 18 * np.sin(angles), 20 - 18 * np.cos(angles)], axis=1)
    mask = draw(cat(star)).mask
    assert mask[20, 25] == 0
    assert mask[5, 25] == 1


def test_smaller_shapes_lie_on_larger_ones():
    small, large = rectangle(10, 10, 20, 20), rectangle(5, 5, 30, 30)
    for shapes in ((cat(small), dog(large)), (dog(large), cat(small))):
        labels = draw(*shapes)
        assert labels.mask[15, 15] == 1
        assert labels.mask[25, 25] == 2
    np.testing.assert_array_equal(labels.boxes, [[5, 5, 30, 30], [10, 10, 20, 20]])
    np.testing.assert_array_equal(labels.box_classes, [2, 1])
    assert draw(cat(large), dog(large)).mask[15, 15] == 2  # of equal ones the later one
    assert draw(cat(small), dog(large, layer=1)).mask[15, 15] == 2


def test_polygons_and_pixels_of_a_shape_are_united():
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1:, 2:] = 1
    labels = draw(cat(rectangle(2, 3, 8, 9), Region.of_pixels(pixels, 20, 30)), uncovered=255)
    expected = np.full(SIZE, 255)
    expected[3:9, 2:8] = expected[31:34, 22:26] = 1
    np.testing.assert_array_equal(labels.mask, expected)
    np.testing.assert_array_equal(labels.boxes, [[2, 3, 26, 34]])


def test_what_is_outside_is_cut_off():
    pixels = np.ones((10, 10), np.uint8)
    labels = draw(
        cat(rectangle(-10, -10, 5, 4)), cat(Region.of_pixels(pixels, 45, -5)), dog(Region.of_pixels(pixels, 50, 0))
    )
    expected = np.zeros(SIZE)
    expected[:4, :5] = expected[:5, 45:] = 1
    np.testing.assert_array_equal(labels.mask, expected)
    np.testing.assert_array_equal(labels.boxes, [[0, 0, 5, 4], [45, 0, 50, 5]])


def test_crowds_and_what_is_no_class_have_no_box():
    labels = draw(cat(rectangle(0, 0, 9, 9), crowd=True), Shape("sofa", [rectangle(20, 20, 30, 30)]))
    assert labels.mask[5, 5] == 1
    assert labels.mask[25, 25] == 255
    assert len(labels.boxes) == 0


def test_shares_are_of_width_and_height():
    labels = draw(cat(rectangle(0.2, 0.5, 0.4, 1)), relative=True)
    np.testing.assert_array_equal(labels.boxes, [[10, 20, 20, 40]])


def test_ellipses_and_turned_shapes():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    along, across = ((x - 25) + (y - 20)) / 2**0.5, ((y - 20) - (x - 25)) / 2**0.5
    radius = np.hypot(along / 16, across / 5)
    clear = abs(radius - 1) > 0.3 / 5
    turned = draw(cat(ellipse(25, 20, 16, 5, 45))).mask  # clockwise: from upper left to lower right
    np.testing.assert_array_equal(turned[clear], radius[clear] < 1)
    square = turn(rectangle(20, 15, 30, 25), 90, (30, 15))
    np.testing.assert_array_equal(draw(cat(square)).boxes, [[20, 5, 30, 15]])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([np.array([[1.0, 2], [3, 4]])], "shape of 'cat' is a polygon of 2 points; delete it"),
        ([rectangle(0, 0, 600, 5)], r"a corner at \(600, 0\), and the image has 50 x 40 pixels"),
        ([rectangle(0, 0, np.nan, 5)], r"a corner at \(nan, 0\)"),
        ([], "has no outline"),
        ([Region(Region.of_pixels(np.eye(99)).rle | {"size": [40, 50]})], "run lengths do not fill 50 x 40 pixels"),
    ],
)
def test_shapes_that_cannot_be_drawn(parts, message):
    with pytest.raises(InputError, match=f"a.json, image 'a.jpg': .*{message}"):
        draw(cat(*parts))


def test_labels_of_another_image():
    with pytest.raises(InputError, match=r"labels an image of 40 x 50 pixels, but the image has 50 x 40; .* `exif`"):
        rasterize(LabeledImage([], "a.json", (50, 40)), SIZE, IDS)
