"""PCR against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from helpers import PCR
from pcr_reference import MOMENTUM, PROTOTYPES, PlainPCR
from toy import GRID

THRESHOLD, DECAY, ALPHA, WEIGHT = 0.42, 0.7, 1.5, 0.6
OPTS = [
    *(*PCR, "FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.EMA_DECAY", DECAY, "FRAMEWORK.ALPHA", ALPHA),
    *("FRAMEWORK.BURN_IN", 1, "FRAMEWORK.PCR.PROTOTYPES", PROTOTYPES, "FRAMEWORK.PCR.PROTOTYPE_WEIGHT", WEIGHT),
    # All labeled cells of the first step are clustered.
    *("FRAMEWORK.PCR.GRID", GRID, "FRAMEWORK.PCR.MOMENTUM", MOMENTUM, "FRAMEWORK.PCR.BANK_SIZE", 16 * 384),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainPCR(framework.student, THRESHOLD, DECAY, weigher, ALPHA, WEIGHT)

    assert_five_steps_equal("pcr", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("pcr")[run] for run in RUNS)
    # What the first step left in the bank weighs from the second one on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
