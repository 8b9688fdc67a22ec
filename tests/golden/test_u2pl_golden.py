"""U2PL against its plain reference and against figures kept from it."""

import pytest
from compare import RUNS, assert_five_steps_equal, kept_figures
from u2pl_reference import PlainU2PL

SETTINGS = {
    **{"steps": 8, "burn_in": 1, "copy_steps": 1, "max_decay": 0.6},
    # Of three classes an uncertain pixel is a negative of the last one alone.
    **{"sizes": (30, 50, 50), "anchors": 12, "negatives": 4, "keys": 20, "ranks": (2, 20)},
}
OPTS = [
    *("FRAMEWORK.NAME", "U2PL", "FRAMEWORK.EMA_BUFFERS", "none", "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 16),
    *("FRAMEWORK.U2PL.QUEUE_SIZE", 50, "FRAMEWORK.U2PL.QUEUE_SIZE_FIRST", 30, "FRAMEWORK.U2PL.KEYS_PER_STEP", 20),
    *("FRAMEWORK.U2PL.ANCHORS", 12, "FRAMEWORK.U2PL.NEGATIVES", 4),
    *("SOLVER.MAX_ITER", 8, "FRAMEWORK.BURN_IN", 1, "FRAMEWORK.EMA_COPY_STEPS", 1, "FRAMEWORK.EMA_DECAY", 0.6),
]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    made = []

    def reference(framework, weigher):
        made.append(PlainU2PL(framework, weigher, **SETTINGS))
        return made[0]

    assert_five_steps_equal("u2pl", run, OPTS, reference)
    # All queues were fed, and some wrapped around.
    assert min(made[0].pushed) > 0
    assert any(pushed > size for pushed, size in zip(made[0].pushed, made[0].sizes, strict=True))


def test_the_golden_figures_tell_weights_and_schedule_apart():
    plain, weighted = (kept_figures("u2pl")[run] for run in RUNS)
    assert [sorted(step) for step in plain[:2]] == [
        ["loss_contrast", "loss_sem_seg"],
        ["loss_contrast", "loss_sem_seg", "loss_unsup"],
    ]
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
    # Negatives are drawn from the steps before, and no weight touches them.
    assert plain[1]["loss_contrast"] == 0 and all(step["loss_contrast"] > 0 for step in plain[2:])
    assert plain[2]["loss_contrast"] == pytest.approx(weighted[2]["loss_contrast"], rel=0.02)
