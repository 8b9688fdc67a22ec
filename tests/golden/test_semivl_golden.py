"""SemiVL against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from semivl_reference import STEPS, PlainSemiVL

THRESHOLD, GUIDANCE_CONF, GUIDANCE_WEIGHT = 0.5, 0.999, 0.3
CONCEPTS = [["ground", "soil"], ["box"], ["ball", "globe", "sphere"]]
OPTS = [
    *("FRAMEWORK.NAME", "SemiVL", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.THRESHOLD", THRESHOLD),
    *("FRAMEWORK.SEMIVL.GUIDANCE_CONF", GUIDANCE_CONF, "FRAMEWORK.SEMIVL.GUIDANCE_WEIGHT", GUIDANCE_WEIGHT),
    *("MODEL.BACKBONE.NAME", "build_maskclip_backbone", "MODEL.TIMM.NAME", "test_vit", "MODEL.MASKCLIP.DIM", 64),
    *("MODEL.SEM_SEG_HEAD.NAME", "VLGHead", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 64, "MODEL.VLG.CONCEPTS", CONCEPTS),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 64, "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32, 16]),
    *("SOLVER.MAX_ITER", STEPS),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        concepts = [len(own) for own in CONCEPTS]
        return PlainSemiVL(framework.student, THRESHOLD, weigher, concepts, GUIDANCE_CONF, GUIDANCE_WEIGHT)

    assert_five_steps_equal("semivl", run, OPTS, reference)


def test_the_golden_figures_tell_the_weights_of_the_guidance_apart():
    plain, weighted = (kept_figures("semivl")[run] for run in RUNS)
    # What CLIP labels is in the bank from the third step on.
    assert plain[:2] == weighted[:2]
    for without, with_weights in zip(plain[2:], weighted[2:], strict=True):
        assert 0 < with_weights["loss_guidance"] < 0.6 * without["loss_guidance"]
        assert with_weights["loss_perturbed"] == pytest.approx(without["loss_perturbed"], rel=0.05)
