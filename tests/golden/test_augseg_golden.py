"""AugSeg against its plain reference and against figures kept from it."""

import pytest
from augseg_reference import PlainAugSeg
from compare import RUNS, assert_five_steps_equal, kept_figures
from helpers import AUGSEG

THRESHOLD, DECAY, COPIES = 0.45, 0.7, 2
OPTS = [
    *(*AUGSEG, "FRAMEWORK.THRESHOLD", THRESHOLD),
    *("FRAMEWORK.EMA_DECAY", DECAY, "FRAMEWORK.EMA_COPY_STEPS", COPIES),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    made = []

    def reference(framework, weigher):
        made.append(PlainAugSeg(framework.student, THRESHOLD, DECAY, COPIES, weigher))
        return made[0]

    assert_five_steps_equal("augseg", run, OPTS, reference)
    assert {*made[0].injected} == {True, False}


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("augseg")[run] for run in RUNS)
    # Nothing is in the bank at the first step.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.9 * without["loss_unsup"]
