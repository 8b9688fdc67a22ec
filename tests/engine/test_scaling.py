from types import SimpleNamespace

import pytest

from wpl_d2 import get_cfg
from wpl_d2.engine.setup import read_cfg
from wpl_d2.engine.solver import resolve_epochs, scale_schedule, steps_of_epoch
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


@pytest.mark.parametrize(
    ("images", "processes", "batch", "steps"),
    [(10490, 4, 8, 1311), (9850, 2, 16, 615), (9850, 8, 16, 616), (2603, 8, 16, 163), (23, 0, 8, 2), (3, 4, 8, 1)],
)
def test_each_process_rounds_its_share_up_and_drops_what_fills_no_batch(images, processes, batch, steps):
    cfg = schedule("SOLVER.REFERENCE_IMS_PER_BATCH", batch, "SOLVER.REFERENCE_WORLD_SIZE", processes)
    assert steps_of_epoch(cfg, images) == steps


EPOCHS = [
    *("SOLVER.EPOCHS", 30, "SOLVER.CHECKPOINT_EPOCHS", 2, "TEST.EVAL_EPOCHS", 1, "FRAMEWORK.BURN_IN_EPOCHS", 3),
    *("FRAMEWORK.EMA_COPY_EPOCHS", 4, "SOLVER.REFERENCE_WORLD_SIZE", 1),
]


def test_what_counts_epochs_is_resolved_once_and_scaled_as_steps_are(tree):
    cfg = tree.cfg("SOLVER.REFERENCE_IMS_PER_BATCH", 2, *EPOCHS)  # 5 unlabeled images
    assert resolve_epochs(cfg) == 2
    steps = cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD
    assert (*steps, cfg.FRAMEWORK.BURN_IN, cfg.FRAMEWORK.EMA_COPY_STEPS) == (60, 4, 2, 6, 8)
    assert resolve_epochs(cfg) == 0 and cfg.SOLVER.MAX_ITER == 60
    cfg.SOLVER.IMS_PER_BATCH = 4
    scale_schedule(cfg)
    assert cfg.SOLVER.MAX_ITER == 30


def test_epochs_are_of_the_labeled_images_where_there_are_no_others(tree):
    cfg = tree.cfg("DATASETS.UNLABELED", (), "SOLVER.EPOCHS", 7, "SOLVER.IMS_PER_BATCH", 1)
    assert (resolve_epochs(cfg), cfg.SOLVER.MAX_ITER) == (3, 21)


def test_epochs_that_cannot_be_counted_are_refused(tree):
    cfg = tree.cfg("SOLVER.EPOCHS", 7, "SOLVER.REFERENCE_IMS_PER_BATCH", 6)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 4
    with pytest.raises(InputError, match=r"REFERENCE_WORLD_SIZE: 4 does not divide a batch of 6 images"):
        resolve_epochs(cfg)
    (tree.root / "unlabeled.txt").unlink()
    with pytest.raises(InputError, match=r"unlabeled\.txt: the list 'unlabeled' of .* is missing"):
        resolve_epochs(cfg)


def test_a_runs_config_holds_steps_and_an_evaluation_counts_none(tree):
    first, again = tree.root / "first.yaml", tree.root / "again.yaml"
    first.write_text(tree.cfg("SOLVER.REFERENCE_IMS_PER_BATCH", 2).dump())
    args = SimpleNamespace(config_file=str(first), opts=[str(word) for word in EPOCHS], eval_only=False)
    cfg, notes = read_cfg(args)
    assert (cfg.SOLVER.MAX_ITER, notes) == (60, ["epochs of 2 steps: SOLVER.MAX_ITER 60"])
    again.write_text(cfg.dump())
    (tree.root / "unlabeled.txt").unlink()
    assert read_cfg(SimpleNamespace(config_file=str(again), opts=[], eval_only=False))[0] == cfg
    args.eval_only = True
    assert read_cfg(args)[1] == []
