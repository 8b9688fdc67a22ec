"""DAW against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from daw_reference import PlainDAW

THRESHOLD = 0.45
OPTS = ["FRAMEWORK.NAME", "DAW", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.THRESHOLD", THRESHOLD]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    seen = {}

    def reference(framework, weigher):
        seen["framework"], seen["reference"] = framework, PlainDAW(framework.student, THRESHOLD, weigher)
        return seen["reference"]

    assert_five_steps_equal("daw", run, OPTS, reference)
    thresholds = seen["reference"].thresholds
    assert len(set(thresholds)) == 5
    assert seen["framework"].threshold.item() == pytest.approx(thresholds[-1], rel=1e-3)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("daw")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
        assert 0 < with_weights["loss_perturbed"] < 0.8 * without["loss_perturbed"]
