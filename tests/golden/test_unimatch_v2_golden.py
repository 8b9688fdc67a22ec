"""UniMatch V2 against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from unimatch_v2_reference import PlainUniMatchV2

THRESHOLD, DECAY = 0.42, 0.7
OPTS = [
    *("FRAMEWORK.NAME", "UniMatchV2", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.THRESHOLD", THRESHOLD),
    *("FRAMEWORK.EMA_DECAY", DECAY),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainUniMatchV2(framework.student, THRESHOLD, DECAY, weigher)

    assert_five_steps_equal("unimatch_v2", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("unimatch_v2")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
