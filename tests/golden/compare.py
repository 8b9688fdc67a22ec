"""Five steps of a framework beside those of a reference, and beside figures kept from it."""

import json
from pathlib import Path

import pytest
import torch
from toy import CLASSES, fix_random_samples, toy_batch, toy_framework
from weighting_reference import PlainWeigher

# Every cell that may enter a bank does, and stays: which are drawn is no part of these tests.
WEIGHTED = [
    *("MODEL.DETECTOR.MODE", "cached", "RPPI.ENABLED", True, "RPPI.CONF", 0.5, "RPPI.BOX_SCORE", 0.5),
    *("WEIGHTING.K", 40, "WEIGHTING.PUSH_PER_IMAGE", 192, "WEIGHTING.BANK_SIZE", 1920, "WEIGHTING.LABELED_CONF", 0.5),
]
# Two models that differ in a last bit may disagree on whether a pixel is confident, and on the ranks of channels.
TOLERANCE = 2e-3
RUNS = {"plain": ["WEIGHTING.ENABLED", False], "weighted": WEIGHTED}


def plain_weigher():
    return PlainWeigher(CLASSES, k=40, min_count=2, labeled_conf=0.5, reliable_conf=0.5, box_score=0.5)


def kept_figures(name):
    """The losses of the reference's five steps, of the plain and the weighted run."""
    return json.loads(Path(__file__).with_name(f"{name}.json").read_text())


def assert_five_steps_equal(name, run, opts, make_reference, make_batch=toy_batch, reliable=100):
    """Train a framework and its reference side by side.

    `make_reference(framework, weigher)` copies what it needs of the framework, which has not been trained yet. It has
    the attribute `student` or `students`, `losses(batch, step)` and `after_step(step)`. Each step's losses must be
    those of the framework, and those that NAME.json keeps. More than `reliable` pixels must be so in a weighted run.
    """
    framework, batch = toy_framework(*opts, *RUNS[run]), make_batch()
    weigher = plain_weigher() if run == "weighted" else None
    reference = make_reference(framework, weigher)
    optimizers = [
        torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.003, momentum=0.9)
        for models in (framework.students, getattr(reference, "students", None) or [reference.student])
    ]
    at = fix_random_samples(framework)
    history = []
    for step in range(5):
        at["step"] = step
        framework.iteration = step
        found, expected = framework(batch), reference.losses(batch, step)
        assert found.keys() == expected.keys()
        for key in found:
            assert found[key].item() == pytest.approx(expected[key].item(), rel=TOLERANCE)
        for losses, optimizer in ((found, optimizers[0]), (expected, optimizers[1])):
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        framework.after_step()
        reference.after_step(step)
        if weigher is not None:
            weigher.end_step()
        history.append({key: round(loss.item(), 6) for key, loss in expected.items()})
    assert weigher is None or weigher.reliable > reliable
    for kept, own in zip(kept_figures(name)[run], history, strict=True):
        assert own == pytest.approx(kept, rel=TOLERANCE)
