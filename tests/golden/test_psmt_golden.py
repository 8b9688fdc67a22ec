"""PS-MT against its plain reference and against figures kept from it."""

from functools import partial

import pytest
import torch
from compare import RUNS, assert_five_steps_equal, kept_figures
from psmt_reference import PlainPSMT
from toy import batch_with_strong_labeled_views, toy_framework

THRESHOLD, ALPHA, DECAY = 0.42, 1.5, 0.7
# The published step of the search is lost in rounding.
SETTINGS = {"burn_in": 1, "turn": 2, "ramp": 6, "top": 1, "step": 0.1, "radius": 2.0}
OPTS = [
    *("FRAMEWORK.NAME", "PSMT", "INPUT.STRONG.LABELED", True, "WEIGHTING.LABELED_FROM", "teacher"),
    *("FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.ALPHA", ALPHA, "FRAMEWORK.EMA_DECAY", DECAY),
    *("FRAMEWORK.BURN_IN", SETTINGS["burn_in"], "FRAMEWORK.PSMT.TURN_STEPS", SETTINGS["turn"]),
    *("FRAMEWORK.PSMT.RAMP_STEPS", SETTINGS["ramp"], "FRAMEWORK.PSMT.TOP_CLASSES", SETTINGS["top"]),
    *("FRAMEWORK.PSMT.VAT_STEP", SETTINGS["step"], "FRAMEWORK.PSMT.VAT_RADIUS", SETTINGS["radius"]),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        models = framework.student, framework.teachers
        return PlainPSMT(*models, THRESHOLD, ALPHA, DECAY, weigher, **SETTINGS)

    assert_five_steps_equal("psmt", run, OPTS, reference, partial(batch_with_strong_labeled_views, 7))


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("psmt")[run] for run in RUNS)
    # The burn-in, and a step whose unlabeled loss has the factor 0.
    assert plain[:2] == weighted[:2]
    for without, with_weights in zip(plain[2:], weighted[2:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]


def test_the_two_teachers_begin_apart_with_a_burn_in_and_as_the_student_without():
    apart = toy_framework(*OPTS, *RUNS["plain"])
    copies = toy_framework(*OPTS, *RUNS["plain"], "FRAMEWORK.BURN_IN", 0)
    for framework, equal in ((apart, False), (copies, True)):
        states = [model.state_dict() for model in (framework.student, *framework.teachers)]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            name = "backbone.body.conv1.weight"
            assert torch.equal(states[one][name], states[other][name]) == equal
