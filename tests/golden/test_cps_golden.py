"""CPS against its plain reference and against figures kept from it."""

import pytest
import torch
from compare import RUNS, assert_five_steps_equal, kept_figures
from cps_reference import PlainCPS
from toy import toy_framework

THRESHOLD, ALPHA = 0.42, 1.5
OPTS = ["FRAMEWORK.NAME", "CPS", "FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.ALPHA", ALPHA]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainCPS(framework.students, THRESHOLD, ALPHA, weigher)

    assert_five_steps_equal("cps", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("cps")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]


def test_students_have_one_backbone_and_two_heads():
    first, second = (student.state_dict() for student in toy_framework(*OPTS, *RUNS["plain"]).students)
    differ = {key for key in first if not torch.equal(first[key], second[key])}
    assert "sem_seg_head.predictor.weight" in differ
    assert not any(key.startswith("backbone.") for key in differ)
