"""`tools/benchmark.py --part frameworks`: every framework that has a preset, on one small network."""

import itertools

import pytest
from helpers import ALLSPARK, PCR, PSEUDOSEG, SMALL

from wpl_d2.benchmark.frameworks import HEAD, compare_frameworks, published_methods, row
from wpl_d2.benchmark.step import Step, first_batch
from wpl_d2.frameworks.base import FRAMEWORK_REGISTRY

CPU = [*SMALL, "FRAMEWORK.AEL.HEAD_CLASSES", ()]


def test_every_semi_supervised_framework_has_published_settings():
    names = {name for name, framework in FRAMEWORK_REGISTRY if framework.semi_supervised}
    assert published_methods().keys() == names


def test_each_part_of_a_step_counts_once_and_for_every_model(tree, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(Step, "_now", lambda self: next(ticks))
    cfg = tree.cfg(*CPU, "FRAMEWORK.NAME", "CPS", "WEIGHTING.KIND", ("tta",))
    step = Step(cfg, first_batch(cfg))
    step()
    (times,) = step.times
    # Of two students, which label, learn from labels and from each other; what weights ask of them is the weights'.
    assert times["models"] == 2 * 3 * 2
    assert times["weighting"] == 2 * 4
    assert times["own"] == times["step"] - 12 - 8 - 1


@pytest.mark.parametrize(
    ("opts", "calls"), [(ALLSPARK, 10), (PSEUDOSEG, 11), (PCR, 5)], ids=["AllSpark", "PseudoSeg", "PCR"]
)
def test_what_a_method_calls_of_a_model_by_itself_is_the_models(tree, monkeypatch, opts, calls):
    ticks = itertools.count()
    monkeypatch.setattr(Step, "_now", lambda self: next(ticks))
    cfg = tree.cfg(*CPU, *opts, "WEIGHTING.ENABLED", False)
    step = Step(cfg, first_batch(cfg))
    step()
    assert step.times[0]["models"] == calls


@pytest.mark.slow
def test_frameworks_are_measured_on_one_network(tree):
    found = dict(compare_frameworks(tree.cfg(*CPU), 1))
    assert found.keys() == published_methods().keys()
    for name, figures in found.items():
        assert 0 < figures["own_share"] < 1
        assert len(row(name, figures).split("|")) == len(HEAD.splitlines()[0].split("|"))
    assert [name for name, figures in found.items() if figures["network"] == "own"] == ["AllSpark", "SemiVL"]
    assert found["CPS"]["weighting_s"] > 0
