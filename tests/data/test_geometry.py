import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import LabeledMapper
from wpl_d2.data.transforms.geometry import RandomView, ViewTransform


def factors(size=(100, 60), draws=400, **options):
    """The factors that a view of .5 to 2 draws for an image of `size`, as shares of its height."""
    np.random.seed(0)
    view = RandomView((0.5, 2.0), (10, 10), (0, 0, 0), **options)
    resized = np.array([view.draw(size).resized for _ in range(draws)])
    ratio = size[1] / size[0]
    assert (abs(resized[:, 1] - ratio * resized[:, 0]) <= (ratio + 1) / 2).all()
    return resized[:, 0] / size[0]


def test_a_plain_scale_is_uniform_over_its_range():
    drawn = factors()
    assert 0.5 <= drawn.min() < 0.52
    assert 1.98 < drawn.max() <= 2.0
    assert 0.28 < (drawn < 1).mean() < 0.39  # a third of the range


def test_a_balanced_scale_shrinks_as_often_as_it_enlarges():
    drawn = factors(scale_balanced=True)
    assert 0.5 <= drawn.min() < 0.52
    assert 1.98 < drawn.max() <= 2.0
    assert 0.45 < (drawn < 1).mean() < 0.55
    assert 0.4 < (drawn[drawn < 1] < 0.75).mean() < 0.6
    assert 0.4 < (drawn[drawn > 1] < 1.5).mean() < 0.6


@pytest.mark.parametrize("size", [(100, 60), (100, 250)])
@pytest.mark.parametrize(("side", "length"), [("longer", max), ("shorter", min)])
def test_the_factor_counts_from_the_base_of_a_side(size, side, length):
    drawn = factors(size, scale_base=400, scale_side=side) * length(size)
    assert 200 <= drawn.min() < 212
    assert 788 < drawn.max() <= 800


def whole(size, resized, resize):
    """The resize alone: a crop of all of it."""
    return ViewTransform(size, resized, False, (0, 0), resized, (0, 0, 0), resize)


def linear(line, length):
    """A line of numbers at another length: between the two nearest ones, with all pixels' centers spread alike."""
    places = (np.arange(length) + 0.5) * len(line) / length - 0.5
    return np.interp(places, np.arange(len(line)), line)


SIZES = [(60, 41), (37, 90), (1, 25), (64, 64), (33, 17)]
FACTORS = [0.1, 0.5, 0.6, 0.75, 1.0, 1.3, 2.0]


def photograph(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, 7, size, dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", FACTORS)
def test_a_bilinear_resize_does_not_smooth_and_masks_take_the_pixel_at_or_before(size, factor):
    # As U2PL and AEL: interpolate(..., align_corners=False), and nearest for masks.
    image, mask = photograph(size)
    height, width = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
    moved = whole(size, (height, width), "bilinear")
    rows = np.apply_along_axis(linear, 0, image.astype(float), height)
    expected = np.apply_along_axis(linear, 1, rows, width)
    found = moved.apply_image(image)
    assert found.dtype == np.uint8 and found.shape == (height, width, 3)
    np.testing.assert_allclose(found, expected, atol=0.51)
    rows, columns = (np.arange(n) * old // n for n, old in zip((height, width), size, strict=True))
    labels = moved.apply_segmentation(mask)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, mask[rows][:, columns])
    boxes = moved.apply_box(np.array([[0.0, 0.0, size[1], size[0]], [3.0, 0.5, 9.0, 1.0]]))
    scale = np.array([width / size[1], height / size[0]] * 2)
    np.testing.assert_allclose(boxes, [scale * [0, 0, size[1], size[0]], scale * [3, 0.5, 9, 1]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", FACTORS)
def test_an_antialiased_resize_is_pils(size, factor):
    # As UniMatch and AugSeg.
    image, mask = photograph(size)
    width, height = max(1, round(size[1] * factor)), max(1, round(size[0] * factor))
    moved = whole(size, (height, width), "antialias")
    smooth = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    nearest = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    np.testing.assert_allclose(moved.apply_image(image), smooth, atol=1)
    # Between two pixels PIL takes the one to which its rounding errors lead.
    rows, columns = (
        (2 * np.arange(new) + 1) * old % (2 * new) > 0 for new, old in zip((height, width), size, strict=True)
    )
    np.testing.assert_array_equal(moved.apply_segmentation(mask)[rows][:, columns], nearest[rows][:, columns])


@pytest.mark.parametrize("resize", ["antialias", "bilinear"])
def test_a_crop_is_cut_out_of_the_whole_image_resized_and_mirrored(resize):
    rng = np.random.default_rng(0)
    mirrored = 0
    for seed in range(100):
        size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        image, mask = photograph(size, seed)
        view = RandomView((0.3, 2.2), rng.integers(1, 70, 2), (7, 8, 9), resize=resize)
        np.random.seed(seed)
        moved = view.draw(size)
        mirrored += moved.flip
        everything = whole(size, moved.resized, resize)
        step = -1 if moved.flip else 1
        (y, x), (height, width) = moved.corner, moved.content
        crop = np.s_[y : y + height, x : x + width]
        found = moved.apply_image(image)
        np.testing.assert_allclose(found[:height, :width], everything.apply_image(image)[:, ::step][crop], atol=2)
        labels = moved.apply_segmentation(mask)
        np.testing.assert_array_equal(labels[:height, :width], everything.apply_segmentation(mask)[:, ::step][crop])
        assert (found[height:] == (7, 8, 9)).all() and (labels[:, width:] == 255).all()
        # A box around all of the image is one around all of the resized image, seen from the crop.
        (box,) = moved.apply_box(np.array([[0.0, 0.0, size[1], size[0]]]))
        np.testing.assert_allclose(box, [-x, -y, moved.resized[1] - x, moved.resized[0] - y], atol=1e-9)
    assert 30 < mirrored < 70


def test_a_crop_of_a_photograph_differs_from_the_whole_by_a_gray_level():
    image = Image.fromarray(photograph((40, 50))[0]).resize((500, 375), Image.Resampling.BICUBIC)  # smooth
    np.random.seed(0)
    view = RandomView((0.5, 2.0), (161, 161), (0, 0, 0), flip=False)
    for _ in range(20):
        moved = view.draw((375, 500))
        height, width = moved.resized
        smooth = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        y, x = moved.corner
        crop = smooth[y : y + moved.content[0], x : x + moved.content[1]]
        found = moved.apply_image(np.asarray(image))[: crop.shape[0], : crop.shape[1]]
        difference = abs(found.astype(int) - crop.astype(int))
        # PIL keeps the box in 32 bits: seldom do the roundings of both of its passes fall to one side.
        assert difference.max() <= 2 and (difference > 1).mean() < 1e-4


def test_boxes_move_with_the_pixels():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[20:40, 30:50] = 255
    np.random.seed(1)
    view = RandomView((0.8, 1.6), (50, 50), (0, 0, 0))
    for _ in range(50):
        moved = view.draw((60, 80))
        (x0, y0, x1, y1) = moved.apply_box(np.array([[30.0, 20.0, 50.0, 40.0]]))[0]
        rows, columns = np.nonzero(moved.apply_image(image)[..., 0] > 127)
        if len(rows):
            limits = [max(x0, 0), max(y0, 0), min(x1, 50), min(y1, 50)]
            shown = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(shown, limits, atol=1)


def test_the_two_resizes_differ_where_an_image_becomes_smaller():
    image, _ = photograph((60, 60))

    def grain(resize, factor):
        return whole((60, 60), (round(60 * factor),) * 2, resize).apply_image(image).std()

    assert grain("bilinear", 0.5) > 1.4 * grain("antialias", 0.5)
    assert grain("bilinear", 2.0) == pytest.approx(grain("antialias", 2.0), abs=0.1)


@pytest.mark.parametrize("resize", ["antialias", "bilinear"])
def test_a_view_of_either_resize_has_the_crops_size_and_says_what_is_padding(resize):
    np.random.seed(0)
    image, _ = photograph((31, 77))
    for _ in range(50):
        view = RandomView((0.1, 2.0), (40, 50), (1, 2, 3), resize=resize)(image)
        assert view.image.shape == (40, 50, 3)
        height, width = view.transform.content
        assert (view.image[height:] == (1, 2, 3)).all() and (view.image[:, width:] == (1, 2, 3)).all()


def test_the_config_reaches_the_mapper(tree):
    cfg = tree.cfg("INPUT.SCALE_BASE", 30, "INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (0.5, 1.5))
    view = LabeledMapper(cfg).view
    assert (view.base, view.balanced, view.low, view.high, view.resize) == (30, True, 0.5, 1.5, "antialias")
    assert LabeledMapper(tree.cfg("INPUT.RESIZE", "bilinear")).view.resize == "bilinear"
    with pytest.raises(ValueError, match=r"INPUT\.RESIZE: 'bilnear' is not known; did you mean bilinear"):
        LabeledMapper(tree.cfg("INPUT.RESIZE", "bilnear"))
    with pytest.raises(ValueError, match=r"SCALE_BALANCED: 1 is not inside INPUT.SCALE_RANGE \(1.5, 2.0\); widen"):
        LabeledMapper(tree.cfg("INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (1.5, 2.0)))
