import numpy as np
import pytest

from wpl_d2.data import LabeledMapper
from wpl_d2.data.augmentation.geometry import RandomScale


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


def test_the_config_reaches_the_mapper(tree):
    cfg = tree.cfg("INPUT.SCALE_BASE", 30, "INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (0.5, 1.5))
    scale = LabeledMapper(cfg).view.augmentations.augs[0]
    assert (scale.base, scale.balanced, scale.low, scale.high) == (30, True, 0.5, 1.5)
    with pytest.raises(ValueError, match=r"SCALE_BALANCED: 1 is not inside \(1.5, 2.0\); widen"):
        LabeledMapper(tree.cfg("INPUT.SCALE_BALANCED", True, "INPUT.SCALE_RANGE", (1.5, 2.0)))
