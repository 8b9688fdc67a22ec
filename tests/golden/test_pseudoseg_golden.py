"""PseudoSeg against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from helpers import PSEUDOSEG
from pseudoseg_reference import PlainPseudoSeg

THRESHOLD, ALPHA, TEMPERATURE = 0.55, 1.5, 0.6
OPTS = [
    *(*PSEUDOSEG, "FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.ALPHA", ALPHA),
    *("FRAMEWORK.PSEUDOSEG.TEMPERATURE", TEMPERATURE),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainPseudoSeg(framework.student, THRESHOLD, ALPHA, TEMPERATURE, weigher)

    assert_five_steps_equal("pseudoseg", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("pseudoseg")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
