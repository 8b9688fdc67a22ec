"""CorrMatch against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from corrmatch_reference import PlainCorrMatch
from helpers import CORRMATCH
from toy import toy_batch

THRESHOLD, MOMENTUM, REGIONS = 0.45, 0.9, 12
OPTS = [
    *(*CORRMATCH, "FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.CORRMATCH.MOMENTUM", MOMENTUM),
    *("FRAMEWORK.CORRMATCH.REGIONS", REGIONS, "MODEL.BACKBONE.OUTPUT_STRIDE", 8),
]


def batch_of_one_view():
    batch = toy_batch()
    for item in batch["unlabeled"]:
        item["strong"] = item["strong"][:1]
    return batch


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    seen = {}

    def reference(framework, weigher):
        seen["framework"] = framework
        seen["reference"] = PlainCorrMatch(framework.student, THRESHOLD, MOMENTUM, REGIONS, weigher)
        return seen["reference"]

    assert_five_steps_equal("corrmatch", run, OPTS, reference, batch_of_one_view)
    found = seen["reference"]
    assert 0 < found.spread["accepted"] < found.spread["regions"] and found.spread["changed"] > 0
    assert THRESHOLD < seen["framework"].threshold.item() == pytest.approx(found.threshold, rel=1e-4)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("corrmatch")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        for name in ("loss_unsup", "loss_perturbed", "loss_propagated"):
            assert 0 < with_weights[name] < 0.8 * without[name]
