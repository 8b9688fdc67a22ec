import pytest
import torch
import torch.nn.functional as F

from wpl_d2.frameworks.virtual_adversarial import adversarial_noise


@pytest.fixture
def problem():
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(16, 4, 1))
    return head, torch.randn(2, 8, 6, 7), torch.rand(2, 8, 6, 7) - 0.5


def change(head, maps, noise):
    """KL of each image's predictions to those with noise."""
    with torch.no_grad():
        before, after = head(maps).log_softmax(1), head(maps + noise).log_softmax(1)
    return F.kl_div(after, before, log_target=True, reduction="none").sum(dim=(1, 2, 3))


def test_noise_has_its_length_and_changes_more_than_where_the_search_started(problem):
    head, maps, start = problem
    noise = adversarial_noise(head, maps, start, step=1.0, radius=2.0)
    assert noise.shape == maps.shape and not noise.requires_grad
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.tensor([2.0, 2.0]))
    random = 2 * start / start.flatten(1).norm(dim=1)[:, None, None, None]
    assert (change(head, maps, noise) > 2 * change(head, maps, random)).all()


def test_each_images_noise_is_its_own(problem):
    head, maps, start = problem
    both = adversarial_noise(head, maps, start, step=1.0, radius=2.0)
    alone = adversarial_noise(head, maps[1:], start[1:], step=1.0, radius=2.0)
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)


def test_nothing_but_the_noise_comes_of_it(problem):
    head, maps, start = problem
    maps.requires_grad_()
    with torch.no_grad():
        quiet = adversarial_noise(head, maps, start, step=1.0, radius=2.0)
    assert torch.equal(adversarial_noise(head, maps, start, step=1.0, radius=2.0), quiet)
    assert maps.grad is None and all(p.grad is None for p in head.parameters())


def test_mixed_precision_does_not_round_the_step_away(problem):
    head, maps, start = problem
    maps = maps.bfloat16()
    expected = adversarial_noise(head, maps.float(), start, step=1.0, radius=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = adversarial_noise(head, maps, start, step=1.0, radius=2.0)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_the_published_step_is_rounded_away_and_a_tenth_is_not(problem):
    (short, lost), (long, found) = (_length_and_direction(problem, step) for step in (1e-6, 0.1))
    _, exact = _length_and_direction(problem, 0.01)
    assert (short < 1e-3).all() and (F.cosine_similarity(lost, exact) < 0.5).all()
    assert (long > 1.99).all() and (F.cosine_similarity(found, exact) > 0.999).all()


def _length_and_direction(problem, step):
    noise = adversarial_noise(*problem, step=step, radius=2.0).flatten(1)
    return noise.norm(dim=1), noise
