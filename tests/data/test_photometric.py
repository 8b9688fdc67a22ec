import math

import pytest
import torch
from PIL import ImageEnhance, ImageOps
from torchvision.transforms.v2 import functional as F

from wpl_d2.data import UnlabeledMapper, seeded
from wpl_d2.data.transforms.photometric import IntensityView, StrongView

# What the operations at these places are by PIL, as they were published; hue and blur are tested below.
PIL = {
    0: lambda image, _: image,
    1: lambda image, _: ImageOps.autocontrast(image),
    2: lambda image, _: ImageOps.equalize(image),
    4: lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    5: lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    6: lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    7: lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    8: lambda image, bits: ImageOps.posterize(image, math.floor(bits)),
    9: lambda image, threshold: ImageOps.solarize(image, math.floor(threshold)),
}
RANGES = [(0, 1)] * 3 + [(0.1, 2.0)] + [(0.05, 0.95)] * 4 + [(4, 8), (1, 256), (-0.5, 0.5)]


def picture():
    """A smooth picture with noise, whose channels do not use all of 0..255."""
    torch.manual_seed(0)
    ramp = torch.linspace(30, 180, 40)[None, :, None] + torch.linspace(0, 50, 50)[None, None]
    return (ramp * torch.tensor([1.0, 0.7, 0.4])[:, None, None] + 20 * torch.rand(3, 40, 50)).byte()


@pytest.mark.parametrize("place", PIL)
def test_operations_are_the_published_ones(place):
    image = picture()
    operation, low, high = IntensityView(3, (0.1, 2.0)).operations[place]
    for share in (0.0, 0.3, 0.999):
        intensity = low + (high - low) * share
        found = operation(image, intensity)
        expected = F.pil_to_tensor(PIL[place](F.to_pil_image(image), intensity))
        assert found.dtype == torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 2, intensity
        assert share != 0.3 or torch.equal(found, image) == (place == 0)


def test_the_blur_takes_details_and_the_hue_colours_away():
    image, view = picture(), IntensityView(3, (0.1, 2.0))
    (blur, *_), (hue, *_) = view.operations[3], view.operations[10]
    details = [blur(image, sigma).float().diff(dim=2).abs().mean() for sigma in (0.1, 0.5, 1.0, 2.0)]
    assert details == sorted(details, reverse=True) and details[0] > 3 * details[-1]
    moved = hue(image, 1 / 3)
    assert moved.float().mean((1, 2)).argmax() == 1  # red is green now
    assert (moved.amax(0).int() - image.amax(0).int()).abs().max() <= 2


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
        view(torch.zeros(3, 4, 4, dtype=torch.uint8))
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
    assert isinstance(UnlabeledMapper(tree.cfg()).strong, StrongView)
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
