import pytest

from wpl_d2 import get_cfg
from wpl_d2.engine.solver import scale_schedule
from wpl_d2.utils.errors import InputError


def schedule(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("SOLVER.REFERENCE_IMS_PER_BATCH", 8, "SOLVER.BASE_LR", 0.001, "SOLVER.MAX_ITER", 1000),
            *("SOLVER.CHECKPOINT_PERIOD", 100, "TEST.EVAL_PERIOD", 50, "FRAMEWORK.BURN_IN", 10, *opts),
        ]
    )
    return cfg


def values(cfg):
    solver = cfg.SOLVER
    steps = solver.MAX_ITER, solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD, cfg.FRAMEWORK.BURN_IN
    return solver.UNLABELED_IMS_PER_BATCH, solver.BASE_LR, *steps


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(8, (8, 0.001, 1000, 100, 50, 10)), (16, (16, 0.002, 500, 50, 25, 5)), (2, (2, 0.00025, 4000, 400, 200, 40))],
)
def test_the_epochs_stay_at_another_batch(batch, expected):
    cfg = schedule("SOLVER.IMS_PER_BATCH", batch)
    assert scale_schedule(cfg) == (batch != 8)
    assert values(cfg) == pytest.approx(expected)
    # A run's config.yaml starts the same run again.
    assert not scale_schedule(cfg)
    assert values(cfg) == pytest.approx(expected)
    assert cfg.SOLVER.WARMUP_ITERS == 0


def test_what_the_user_sets_is_left_alone():
    cfg = schedule("SOLVER.IMS_PER_BATCH", 16, "SOLVER.MAX_ITER", 70)
    scale_schedule(cfg, given=["SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER"])
    assert values(cfg) == pytest.approx((16, 0.002, 70, 50, 25, 5))


def test_what_the_user_sets_for_a_batch_is_scaled_from_that_batch():
    given = ["SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER", "SOLVER.BASE_LR", "SOLVER.REFERENCE_IMS_PER_BATCH"]
    cfg = schedule("SOLVER.IMS_PER_BATCH", 16, "SOLVER.MAX_ITER", 70)
    assert scale_schedule(cfg, given)
    assert values(cfg) == pytest.approx((16, 0.002, 35, 50, 25, 5))


def test_without_a_reference_nothing_is_scaled():
    cfg = schedule("SOLVER.IMS_PER_BATCH", 16, "SOLVER.REFERENCE_IMS_PER_BATCH", 0)
    scale_schedule(cfg)
    assert values(cfg) == pytest.approx((8, 0.001, 1000, 100, 50, 10))


def test_part_of_an_unlabeled_image_is_refused():
    cfg = schedule("SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 7)
    with pytest.raises(InputError, match=r"set SOLVER\.UNLABELED_IMS_PER_BATCH too"):
        scale_schedule(cfg)
