import dataclasses

import pytest
import torch

from wpl_d2.export.verify import compare
from wpl_d2.inference.runtime_model import RuntimeModel


def plain(images):
    """Logits of three classes: brightness, its opposite, a constant."""
    mean = images.mean(dim=1)
    return torch.stack([mean, 255 - mean, torch.full_like(mean, 120.0)], dim=1)


MODEL = RuntimeModel({}, plain, None)


def noise(*size):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("least", [1, 9, 17, 33])
@pytest.mark.parametrize("size", [(1, 1), (1, 96), (96, 1), (2, 3), (24, 40), (32, 32), (100, 131)])
def test_images_of_any_size_are_compared(least, size):
    seen = []

    def picky(images):
        assert min(images.shape[-2:]) >= least
        seen.append(images.shape)
        return plain(images)

    agreement = compare(MODEL, RuntimeModel({}, picky, None, least), [noise(*size), noise(50, 60)])
    assert agreement.within_limits and len(seen) == 10
    assert (1, 3, least, least) in seen
    expected = [shape for shape in (size, (50, 60)) if min(shape) < 2 * least + 2]
    assert agreement.enlarged == expected
    assert ("enlarged from" in str(agreement)) == bool(expected)
    if min(size) >= 2 * least + 2:
        assert seen[0] == (1, 3, *size)


def wrong_at(condition, by):
    def segment(images):
        return plain(images) + (by if condition(images) else 0)

    return dataclasses.replace(MODEL, segment=segment)


@pytest.mark.parametrize(
    "condition",
    [
        lambda images: len(images) == 2,
        lambda images: images.shape[-2:] == (1, 1),
        lambda images: images.shape[-1] % 2 == 1,
        lambda images: images.shape[-2:] == (50, 60),
    ],
)
def test_a_file_that_is_wrong_somewhere_is_found(condition):
    class_zero = torch.tensor([300.0, 0, 0])[:, None, None]
    assert not compare(MODEL, wrong_at(condition, class_zero), [noise(50, 60)]).within_limits
    assert not compare(MODEL, wrong_at(condition, 1.0), [noise(50, 60)]).within_limits
    assert compare(MODEL, wrong_at(condition, 0.01), [noise(50, 60)]).within_limits


def test_classes_that_tie_are_no_difference():
    """In plain images, such as those that were one pixel, all pixels tie at once."""

    def tied(images):
        return plain(images) * 0 + torch.tensor([1.0, 1.0, 0.0])[:, None, None]

    def other(images):
        return tied(images) + torch.tensor([0.0, 1e-5, 0.0])[:, None, None]

    agreement = compare(RuntimeModel({}, tied, None), RuntimeModel({}, other, None), [noise(1, 1)])
    assert agreement.within_limits and agreement.same_class == 1
