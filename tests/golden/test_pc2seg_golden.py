"""PC2Seg's reconstruction against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from pc2seg_reference import PlainPC2Seg

SETTINGS = {"threshold": 0.4, "contrast_weight": 0.3, "anchors": 12, "negatives": 5}
OPTS = [
    *("FRAMEWORK.NAME", "PC2Seg", "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 16, "FRAMEWORK.THRESHOLD", 0.4),
    *("FRAMEWORK.PC2SEG.CONTRAST_WEIGHT", 0.3, "FRAMEWORK.PC2SEG.ANCHORS", 12, "FRAMEWORK.PC2SEG.NEGATIVES", 5),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    assert_five_steps_equal("pc2seg", run, OPTS, lambda framework, weigher: PlainPC2Seg(framework, weigher, **SETTINGS))


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("pc2seg")[run] for run in RUNS)
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
        assert with_weights["loss_contrast"] > 0
