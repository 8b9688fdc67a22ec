"""UniMatch against its plain reference and against figures kept from it: five steps of both, side by side."""

import copy
import json
from pathlib import Path

import pytest
import torch
from toy import CLASSES, fix_draws, toy_batch, toy_framework
from unimatch_reference import unimatch_losses
from weighting_reference import PlainWeigher

GOLDEN = Path(__file__).with_name("unimatch.json")
THRESHOLD = 0.45
OPTS = ["FRAMEWORK.NAME", "UniMatch", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.THRESHOLD", THRESHOLD]
# Every cell that may enter a bank does, and stays: which are drawn is no part of this test.
WEIGHTED = [
    *("MODEL.DETECTOR.MODE", "cached", "RPPI.ENABLED", True, "RPPI.CONF", 0.5, "RPPI.BOX_SCORE", 0.5),
    *("WEIGHTING.K", 40, "WEIGHTING.PUSH_PER_IMAGE", 192, "WEIGHTING.BANK_SIZE", 1920, "WEIGHTING.LABELED_CONF", 0.5),
]
RUNS = {"plain": ["WEIGHTING.ENABLED", False], "weighted": WEIGHTED}


def plain_weigher():
    return PlainWeigher(CLASSES, k=40, min_count=2, labeled_conf=0.5, reliable_conf=0.5, box_score=0.5)


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run, monkeypatch):
    framework, batch = toy_framework(*OPTS, *RUNS[run]), toy_batch()
    plain, weigher = copy.deepcopy(framework.student), plain_weigher() if run == "weighted" else None
    models = (framework.student, plain)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9) for model in models]
    at = fix_draws(monkeypatch)
    history = []
    for step in range(5):
        at.update(step=step, view=0)
        framework.iteration = step
        found = framework(batch)
        expected = unimatch_losses(plain, batch, step, THRESHOLD, weigher)
        assert found.keys() == expected.keys()
        for name in found:
            # Two models that differ in a last bit may disagree on whether a pixel is confident.
            assert found[name].item() == pytest.approx(expected[name].item(), rel=2e-4)
        for losses, optimizer in ((found, optimizers[0]), (expected, optimizers[1])):
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        framework.commit()
        if weigher is not None:
            weigher.end_step()
        history.append({name: round(loss.item(), 6) for name, loss in expected.items()})
    assert weigher is None or weigher.reliable > 100
    for kept, own in zip(json.loads(GOLDEN.read_text())[run], history, strict=True):
        assert own == pytest.approx(kept, rel=1e-3)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (json.loads(GOLDEN.read_text())[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
        assert 0 < with_weights["loss_perturbed"] < 0.8 * without["loss_perturbed"]
