"""PrevMatch against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from prevmatch_reference import PlainPrevMatch

THRESHOLD, PAST_THRESHOLD, SIZE, STEPS = 0.45, 0.42, 2, 6
OPTS = [
    *("FRAMEWORK.NAME", "PrevMatch", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.THRESHOLD", THRESHOLD),
    *("FRAMEWORK.PREVMATCH.PUSH_STEPS", 1, "FRAMEWORK.PREVMATCH.POOL_SIZE", SIZE, "SOLVER.MAX_ITER", STEPS),
    *("FRAMEWORK.PREVMATCH.THRESHOLD", PAST_THRESHOLD),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainPrevMatch(framework.student, THRESHOLD, PAST_THRESHOLD, SIZE, STEPS, weigher)

    assert_five_steps_equal("prevmatch", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("prevmatch")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
        assert 0 < with_weights["loss_perturbed"] < 0.8 * without["loss_perturbed"]
