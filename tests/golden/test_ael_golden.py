"""AEL against its plain reference and against figures kept from it."""

import pytest
import torch
from ael_reference import AREA, IMAGES, MIN_KEPT, MOMENTUM, OHEM, PART, THRESHOLD, FixedRand, PlainAEL, ael_batch
from compare import RUNS, assert_five_steps_equal, kept_figures
from detectron2.data import DatasetCatalog
from helpers import AEL

OPTS = [
    *(*AEL, "DATASETS.UNLABELED", ("ael_toy",), "SOLVER.UNLABELED_IMS_PER_BATCH", 2, "FRAMEWORK.THRESHOLD", THRESHOLD),
    *("FRAMEWORK.AEL.PRESENCE_AREA", AREA, "FRAMEWORK.AEL.COMPONENT_AREA", PART, "FRAMEWORK.AEL.MOMENTUM", MOMENTUM),
    *("FRAMEWORK.OHEM.ENABLED", True, "FRAMEWORK.OHEM.THRESHOLD", OHEM, "FRAMEWORK.OHEM.MIN_KEPT", MIN_KEPT),
    *("MODEL.AUX_HEAD.ENABLED", True, "MODEL.AUX_HEAD.DROPOUT", 0.0, "WEIGHTING.NORM", "weight_sum"),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run, monkeypatch):
    if "ael_toy" not in DatasetCatalog:
        DatasetCatalog.register("ael_toy", lambda: [{}] * IMAGES)
    rand, parts = FixedRand(), []
    monkeypatch.setattr(torch, "rand", rand)

    class Watched(PlainAEL):
        def box(self, labels, kind, number, step):
            parts.append(kind is not None and (labels == kind).any())
            return super().box(labels, kind, number, step)

    def reference(framework, weigher):
        rand.framework = framework
        # The toy fixes the weights but no biases, which begin at random here alone.
        torch.nn.init.zeros_(framework.student.aux_head.layers[-1].bias)
        framework.reset()
        return Watched(framework, weigher)

    assert_five_steps_equal("ael", run, OPTS, reference, ael_batch)
    assert rand.call == 7
    assert not any(parts[:4]) and sum(parts[4:]) > 2  # a partner comes two steps after it is chosen


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("ael")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and little at the second. The weights' mean is no factor of the loss.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[2:], weighted[2:], strict=True):
        assert abs(with_weights["loss_unsup"] / without["loss_unsup"] - 1) > 0.003
