"""The learned weight equals its definition, computed by loops and by scipy's optimizer."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import forbid_host_sync
from scipy.optimize import minimize

from wpl_d2.structures import IGNORE, PseudoLabels
from wpl_d2.utils.errors import InputError
from wpl_d2.weighting import Evidence, PixelWeigher
from wpl_d2.weighting.calibrated import fit_logistic

CLASSES, DIM = 4, 6
SCORES = ("confidence", "cosine")


def make(**options):
    defaults = {"kind": "calibrated", "constituents": SCORES, "bank_size": 8, "min_count": 2}
    weigher = PixelWeigher(num_classes=CLASSES, dim=DIM, **defaults | options)
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3])  # one embedding of class 3 is too few
    weigher.labeled_bank.push(torch.rand(len(labels), DIM, generator=generator), labels)
    return weigher


def step_of(seed, images=3):
    """Evidence of views with padding, and masks that confirm some of the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, 16, 20, generator=generator) * 2
    embedding = torch.randn(images, DIM, 4, 5, generator=generator)
    valid = torch.ones(images, 16, 20, dtype=torch.bool)
    valid[:, :, 18:] = False
    pseudo = PseudoLabels.from_logits(logits, valid)
    chance = torch.rand(pseudo.labels.shape, generator=generator)
    target = torch.where(chance < pseudo.confidence, pseudo.labels, (pseudo.labels + 1) % CLASSES)
    target[:, :2] = IGNORE
    return Evidence(pseudo, logits, embedding), target


def log_odds(value):
    value = min(max(value, 1e-4), 1 - 1e-4)
    return math.log(value / (1 - value))


def rows_of(weigher, evidence, target):
    """Log-odds and right or wrong of the pixel in the middle of each cell of 4 x 4, by a loop."""
    inputs, right = [], []
    maps = [weigher.scores["calibrated"].scores[i](evidence, weigher.memory) for i in range(len(SCORES))]
    labels = evidence.pseudo.labels
    for image in range(len(labels)):
        for y in range(2, 16, 4):
            for x in range(2, 20, 4):
                place = image, y, x
                if labels[place] in (IGNORE, 3) or target[place] == IGNORE:
                    continue
                inputs.append([log_odds(values[place].item()) for values in maps])
                right.append(float(labels[place] == target[place]))
    return np.array(inputs), np.array(right)


def optimum(inputs, right):
    """The coefficients by another optimizer."""
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    rows = np.column_stack([(inputs - mean) / spread, np.ones(len(right))])

    def loss(w):
        margin = rows @ w * (2 * right - 1)
        return np.logaddexp(0, -margin).mean() + 0.5e-3 * w @ w

    found = minimize(loss, np.zeros(rows.shape[1]), method="BFGS", options={"gtol": 1e-9}).x
    factors = found[:-1] / spread
    return [*factors, found[-1] - factors @ mean]


def test_it_is_fitted_to_the_held_out_pixels_that_are_weighed():
    weigher = make()
    inputs, right = [], []
    for seed in range(2):
        evidence, target = step_of(seed)
        weigher.stage_held_out(evidence, target)
        for rows, new in zip((inputs, right), rows_of(weigher, evidence, target), strict=True):
            rows.extend(new)
    weigher.after_step()
    score = weigher.scores["calibrated"]
    assert 0.3 < np.mean(right) < 0.9
    expected = optimum(np.array(inputs), np.array(right))
    assert score.coefficients.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_score_is_the_chance_of_a_right_label_once_it_is_fitted():
    weigher, (evidence, target) = make(), step_of(0)
    assert (weigher.weight(evidence) == 1).all()
    weigher.stage_held_out(evidence, target)
    assert (weigher.weight(evidence) == 1).all()
    weigher.after_step()
    weight, (*factors, constant) = weigher.weight(evidence), weigher.scores["calibrated"].coefficients.tolist()
    maps = [score(evidence, weigher.memory) for score in weigher.scores["calibrated"].scores]
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(16), torch.arange(20)).tolist():
        place = tuple(place)
        z = constant + sum(f * log_odds(values[place].item()) for f, values in zip(factors, maps, strict=True))
        neutral = evidence.pseudo.labels[place] in (IGNORE, 3)
        assert weight[place].item() == pytest.approx(1.0 if neutral else 1 / (1 + math.exp(-z)), abs=1e-4)


def test_without_a_pixel_that_counts_the_last_fit_stays():
    weigher, (evidence, target) = make(), step_of(0)
    weigher.stage_held_out(evidence, torch.full_like(target, IGNORE))
    weigher.after_step()
    assert not weigher.scores["calibrated"].fitted
    weigher.stage_held_out(evidence, target)
    weigher.after_step()
    before = weigher.scores["calibrated"].coefficients.clone()
    assert before.any()
    weigher.after_step()
    weigher.stage_held_out(evidence, torch.full_like(target, IGNORE))
    weigher.after_step()
    assert weigher.scores["calibrated"].coefficients.equal(before)


@pytest.mark.parametrize("right", [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]])
def test_inputs_that_separate_everything_give_finite_chances(right):
    inputs = torch.tensor([[-9.0, 2], [-8, 2], [8, 2], [9, 2]], dtype=torch.float64)  # the second says nothing
    fit = fit_logistic(inputs, torch.tensor(right).double(), torch.ones(4).double())
    chance = (inputs @ fit[:2] + fit[2]).sigmoid()
    assert fit.isfinite().all() and (chance.round() == torch.tensor(right)).all()
    assert 0.9 < (chance - 0.5).abs().min() + 0.5 < 1


def test_only_the_fit_waits_for_the_device():
    weigher, (evidence, target) = make(), step_of(0)
    with forbid_host_sync():
        weigher.stage_held_out(evidence, target)
        weight = weigher.weight(evidence)
    assert not weight.requires_grad


def test_its_state_is_saved():
    (evidence, target), weigher, other = step_of(0), make(), make()
    weigher.stage_held_out(evidence, target)
    weigher.after_step()
    other.load_state_dict(weigher.state_dict())
    assert other.weight(evidence).equal(weigher.weight(evidence)) and weigher.weight(evidence).std() > 0


@pytest.mark.parametrize(
    "scores, message",
    [
        (("cosin",), r"WEIGHTING\.CALIBRATED\.SCORES: 'cosin' .* did you mean cosine"),
        (("softmatch",), r"WEIGHTING\.CALIBRATED\.SCORES: softmatch learns in training"),
        (("rank", "rank"), r"WEIGHTING\.CALIBRATED\.SCORES: names rank twice"),
        ((), r"WEIGHTING\.CALIBRATED\.SCORES: names nothing"),
    ],
)
def test_what_it_cannot_learn_from_is_named(scores, message):
    with pytest.raises(InputError, match=message):
        make(constituents=scores)


def fit_on(rank, world, folder):
    """One rank's part of the held-out images; its state is saved to `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    weigher = make()
    weigher.stage_held_out(*step_of(rank))
    weigher.after_step()
    torch.save(weigher.state_dict(), f"{folder}/state_{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_same_fit_to_the_images_of_both(tmp_path):
    mp.spawn(fit_on, args=(2, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"state_{rank}.pth") for rank in range(2))
    alone = make()
    for rank in range(2):
        alone.stage_held_out(*step_of(rank))
    alone.after_step()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, dict(alone.state_dict()), rtol=0, atol=0)
    assert alone.scores["calibrated"].fitted
