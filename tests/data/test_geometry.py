import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import LabeledMapper
from wpl_d2.data.transforms.geometry import RandomScale, RandomView


def factors(scale, size=(100, 60), draws=400):
    """The factors that `scale` draws for an image of `size`, as shares of its height."""
    np.random.seed(0)
    image = np.zeros((*size, 3), dtype=np.uint8)
    transforms = [scale.get_transform(image) for _ in range(draws)]
    ratio = size[1] / size[0]
    assert all(abs(drawn.new_w - ratio * drawn.new_h) <= (ratio + 1) / 2 for drawn in transforms)
    return np.array([drawn.new_h / size[0] for drawn in transforms])


def test_a_plain_scale_is_uniform_over_its_range():
    drawn = factors(RandomScale((0.5, 2.0)))
    assert 0.5 <= drawn.min() < 0.52
    assert 1.98 < drawn.max() <= 2.0
    assert 0.28 < (drawn < 1).mean() < 0.39  # a third of the range


def test_a_balanced_scale_shrinks_as_often_as_it_enlarges():
    drawn = factors(RandomScale((0.5, 2.0), balanced=True))
    assert 0.5 <= drawn.min() < 0.52
    assert 1.98 < drawn.max() <= 2.0
    assert 0.45 < (drawn < 1).mean() < 0.55
    assert 0.4 < (drawn[drawn < 1] < 0.75).mean() < 0.6
    assert 0.4 < (drawn[drawn > 1] < 1.5).mean() < 0.6


@pytest.mark.parametrize("size", [(100, 60), (100, 250)])
def test_the_factor_counts_from_the_base_long_side(size):
    drawn = factors(RandomScale((0.5, 2.0), base=400), size)
    long = drawn * max(size)
    assert 200 <= long.min() < 212
    assert 788 < long.max() <= 800


def linear(line, length):
    """A line of numbers at another length: between the two nearest ones, with all pixels' centres spread alike."""
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
    moved = RandomScale((factor, factor), resize="bilinear").get_transform(image)
    height, width = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
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
    moved = RandomScale((factor, factor)).get_transform(image)
    width, height = max(1, round(size[1] * factor)), max(1, round(size[0] * factor))
    smooth = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    nearest = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(moved.apply_image(image), smooth)
    np.testing.assert_array_equal(moved.apply_segmentation(mask), nearest)


def test_the_two_resizes_differ_where_an_image_becomes_smaller():
    image, _ = photograph((60, 60))

    def grain(resize, factor):
        return RandomScale((factor, factor), resize=resize).get_transform(image).apply_image(image).std()

    assert grain("bilinear", 0.5) > 1.4 * grain("antialias", 0.5)
    assert grain("bilinear", 2.0) == pytest.approx(grain("antialias", 2.0), abs=0.1)


@pytest.mark.parametrize("resize", ["antialias", "bilinear"])
def test_a_view_of_either_resize_has_the_crops_size_and_says_what_is_padding(resize):
    np.random.seed(0)
    image, _ = photograph((31, 77))
    for _ in range(50):
        view = RandomView((0.1, 2.0), (40, 50), (1, 2, 3), resize=resize)(image)
        assert view.image.shape == (40, 50, 3)
        height, width = view.content
        assert (view.image[height:] == (1, 2, 3)).all() and (view.image[:, width:] == (1, 2, 3)).all()


def test_the_config_reaches_the_mapper(tree):
    cfg = tree.cfg("INPUT.SCALE_BASE", 30, "INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (0.5, 1.5))
    scale = LabeledMapper(cfg).view.augmentations.augs[0]
    assert (scale.base, scale.balanced, scale.low, scale.high) == (30, True, 0.5, 1.5)
    assert scale.antialias
    assert not LabeledMapper(tree.cfg("INPUT.RESIZE", "bilinear")).view.augmentations.augs[0].antialias
    with pytest.raises(ValueError, match=r"INPUT\.RESIZE: 'bilnear' is not known; did you mean bilinear"):
        LabeledMapper(tree.cfg("INPUT.RESIZE", "bilnear"))
    with pytest.raises(ValueError, match=r"SCALE_BALANCED: 1 is not inside INPUT.SCALE_RANGE \(1.5, 2.0\); widen"):
        LabeledMapper(tree.cfg("INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (1.5, 2.0)))
