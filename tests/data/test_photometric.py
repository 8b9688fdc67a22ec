import numpy as np
import pytest
import torch
from PIL import ImageEnhance, ImageOps
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from wpl_d2.data import UnlabeledMapper, seeded
from wpl_d2.data.transforms import color
from wpl_d2.data.transforms.photometric import IntensityView, JitterView

# Each operation by PIL, as it was published, or by torchvision; at most so many gray levels differ.
PUBLISHED = {
    color.identity: (lambda image, _: image, 0),
    color.autocontrast: (lambda image, _: ImageOps.autocontrast(image), 0),
    color.equalize: (lambda image, _: ImageOps.equalize(image), 0),
    color.gaussian_blur: (lambda image, sigma: F.gaussian_blur(image, [13, 13], [sigma, sigma]), 1),
    color.adjust_contrast: (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), 1),
    color.adjust_brightness: (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), 1),
    color.adjust_saturation: (lambda image, factor: ImageEnhance.Color(image).enhance(factor), 2),
    color.adjust_sharpness: (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), 2),
    color.posterize: (lambda image, bits: ImageOps.posterize(image, int(bits)), 0),
    color.solarize: (lambda image, threshold: ImageOps.solarize(image, int(threshold)), 0),
    color.adjust_hue: (lambda image, turn: F.adjust_hue(image, turn), 8),
    color.to_grayscale: (lambda image, _: F.rgb_to_grayscale(image, 3), 1),
}
RANGES = [(0, 1)] * 3 + [(0.1, 2.0)] + [(0.05, 0.95)] * 4 + [(4, 8), (1, 256), (-0.5, 0.5)]


def picture():
    """A smooth picture (40, 50, 3) with noise, whose channels do not use all of 0..255."""
    torch.manual_seed(0)
    ramp = torch.linspace(30, 180, 40)[:, None, None] + torch.linspace(0, 50, 50)[:, None]
    return (ramp * torch.tensor([1.0, 0.7, 0.4]) + 20 * torch.rand(40, 50, 3)).byte().numpy()


@pytest.mark.parametrize("operation", PUBLISHED, ids=lambda operation: operation.__name__)
def test_operations_are_the_published_ones(operation):
    image, (published, levels) = picture(), PUBLISHED[operation]
    before = image.copy()
    ranges = {function: limits for function, *limits in IntensityView(3, (0.1, 2.0)).operations}
    low, high = ranges.get(operation, (0.0, 1.0))
    for share in (0.0, 0.3, 0.999):
        value = low + (high - low) * share
        found = operation(image, value)
        expected = np.asarray(published(F.to_pil_image(image), value))
        assert found.dtype == np.uint8 and found.shape == image.shape
        difference = abs(found.astype(int) - expected)
        assert difference.max() <= levels and difference.mean() <= max(0.6, levels / 6), value
        assert share != 0.3 or np.array_equal(found, image) == (operation is color.identity)
    np.testing.assert_array_equal(image, before)


def test_brighter_and_stronger_than_the_original_as_far_as_the_jitter_goes():
    image = picture()
    for operation in (color.adjust_brightness, color.adjust_contrast, color.adjust_saturation):
        expected = getattr(F, operation.__name__)(torch.from_numpy(image).permute(2, 0, 1), 1.5)
        assert abs(operation(image, 1.5).astype(int) - expected.permute(1, 2, 0).numpy()).max() <= 2


def test_any_size_is_blurred_and_turned():
    for size in ((1, 1), (2, 5), (3, 3)):
        image = picture()[: size[0], : size[1]]
        for operation in PUBLISHED:
            assert operation(image, 1.7 if operation is color.gaussian_blur else 0.4 * 10).shape == image.shape


def test_a_jittered_view_is_distributed_as_torchvisions():
    image = picture()
    view = JitterView((0.5, 0.5, 0.5, 0.25), 0.8, 0.2, 0.5, (0.1, 2.0))
    published = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(13, sigma=(0.1, 2.0))], p=0.5),
        ]
    )
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    torch.manual_seed(0)
    ours = np.array([moments(view(image)) for _ in range(2000)])
    theirs = np.array([moments(published(tensor).permute(1, 2, 0).numpy()) for _ in range(2000)])
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / 2000)
    assert (abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all()
    for mine, other in zip(ours.T, theirs.T, strict=True):  # Kolmogorov and Smirnov, one in a thousand
        places = np.sort(np.concatenate([mine, other]))
        steps = [np.searchsorted(np.sort(values), places, side="right") / 2000 for values in (mine, other)]
        assert abs(steps[0] - steps[1]).max() < 1.95 * np.sqrt(2 / 2000)


def moments(view):
    """Mean and standard deviation of each channel, and the mean step between neighbors."""
    values = view.astype(float)
    return [*values.mean((0, 1)), *values.std((0, 1)), abs(np.diff(values, axis=1)).mean()]


def test_the_jitter_is_drawn_as_asked():
    view = JitterView((0.5, 0.4, 0.3, 0.25), 0.8, 0.2, 0.5, (0.1, 2.0))
    torch.manual_seed(0)
    drawn = [view.draw() for _ in range(2000)]
    values = {}
    for operation, value in (pair for pairs in drawn for pair in pairs):
        values.setdefault(operation, []).append(value)
    for operation, share, low, high in (
        (color.adjust_brightness, 0.8, 0.5, 1.5),
        (color.adjust_contrast, 0.8, 0.6, 1.4),
        (color.adjust_saturation, 0.8, 0.7, 1.3),
        (color.adjust_hue, 0.8, -0.25, 0.25),
        (color.to_grayscale, 0.2, 0.0, 0.0),
        (color.gaussian_blur, 0.5, 0.1, 2.0),
    ):
        found = np.array(values[operation])
        assert abs(len(found) / 2000 - share) < 0.04
        assert low <= found.min() <= low + 0.02 * (high - low) and high - 0.02 * (high - low) <= found.max() <= high
    orders = {tuple(operation for operation, _ in pairs[:4]) for pairs in drawn if len(pairs) >= 4}
    assert len(orders) == 24


def recorded(view):
    """Let a view record which operations it does with what intensity, instead of doing them."""
    calls = []
    view.operations = [
        (lambda image, value, place=place: calls[-1].append((place, value)) or image, low, high)
        for place, (_, low, high) in enumerate(view.operations)
    ]
    return calls


def test_one_to_three_operations_with_replacement_each_over_its_whole_range():
    view = IntensityView(3, (0.1, 2.0))
    calls = recorded(view)
    torch.manual_seed(0)
    for _ in range(2000):
        calls.append([])
        view(np.zeros((4, 4, 3), dtype=np.uint8))
    counts = [len(call) for call in calls]
    assert {*counts} == {1, 2, 3} and all(600 < counts.count(n) < 735 for n in (1, 2, 3))
    assert any(len({place for place, _ in call}) < len(call) for call in calls)
    for place, (low, high) in enumerate(RANGES):
        values = [value for call in calls for at, value in call if at == place]
        assert 290 < len(values) < 440  # 4000 / 11
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) < high


def test_the_config_says_which_kind(tree):
    record = {"file_name": str(tree.image("unlabeled0"))}
    assert isinstance(UnlabeledMapper(tree.cfg()).strong, JitterView)
    mapper = UnlabeledMapper(tree.cfg("INPUT.STRONG.KIND", "intensity", "INPUT.STRONG.MAX_OPERATIONS", 1))
    calls = recorded(mapper.strong)
    for seed in range(20):
        calls.append([])
        with seeded(seed):
            sample = mapper(record)
        assert torch.equal(sample["strong"][0], sample["image"])  # the same crop
    assert [len(call) for call in calls] == [1] * 20


def test_a_view_is_counted_and_keeps_shape_and_type(tree):
    mapper = UnlabeledMapper(tree.cfg("INPUT.STRONG.KIND", "intensity"))
    views = []
    for seed in (0, 1, 0):
        with seeded(seed):
            views.append(mapper({"file_name": str(tree.image("unlabeled0"))})["strong"])
    assert views[0].shape == (1, 3, 40, 48) and views[0].dtype == torch.uint8
    assert torch.equal(views[0], views[2]) and not torch.equal(views[0], views[1])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["INPUT.STRONG.KIND", "intensty"], "did you mean intensity"),
        (["INPUT.STRONG.KIND", "intensity", "INPUT.STRONG.MAX_OPERATIONS", 0], "MAX_OPERATIONS: 0 is out of"),
    ],
)
def test_wrong_settings_name_the_mend(tree, opts, message):
    with pytest.raises(ValueError, match=message):
        UnlabeledMapper(tree.cfg(*opts))
