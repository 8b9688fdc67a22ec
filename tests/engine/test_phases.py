"""ST and ST++: several trainings in one run, stopped anywhere."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from helpers import SMALL, SMALL_DETECTOR, ST_PLUS_PLUS

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.checkpoint.loading import load_model
from wpl_d2.checkpoint.run_folder import check_folder_free, move_aside
from wpl_d2.cli.train_net import train_or_evaluate
from wpl_d2.config.config import leaf_keys
from wpl_d2.config.layers import value_of
from wpl_d2.data.pseudo_label_store import PseudoLabelStore
from wpl_d2.engine import Trainer, check_continued_run, check_run, make_plan
from wpl_d2.export import export_model
from wpl_d2.inference import image_scores
from wpl_d2.utils.errors import InputError

OPTS = [
    *(*SMALL, *SMALL_DETECTOR, *ST_PLUS_PLUS, "RPPI.CONF", 0.0, "SOLVER.BASE_LR", 0.01, "SEED", 3),
    *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.UNLABELED_IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.MAX_ITER", 4, "FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS", (6, 3), "SOLVER.CHECKPOINT_PERIOD", 2),
    *("FRAMEWORK.ST_PLUS_PLUS.LABELER", "last", "FRAMEWORK.ST_PLUS_PLUS.SCALES", (0.5, 1.0)),
]


class StopHere(Exception):
    pass


def arguments(tree, output, *opts, resume=False):
    data = ["DATASETS.DESCRIPTION", tree.yaml, "OUTPUT_DIR", output]
    words = [str(word) for word in (*OPTS, *data, *opts)]
    return argparse.Namespace(
        **{"config_file": "", "opts": words, "resume": resume, "eval_only": False, "num_gpus": 1, "num_machines": 1}
    )


def stop_at(monkeypatch, owner, name, when):
    """Have a function raise `StopHere` in its call number `when`."""
    call, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == when:
            raise StopHere
        return call(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


STOPS = [
    (Trainer, "run_step", 4),  # of the first training
    (image_scores, "image_score", 3),
    (PseudoLabelStore, "write", 2),
    (Trainer, "run_step", 3),  # of the second one
    (PseudoLabelStore, "write", 3),
    (Trainer, "run_step", 4),  # of the last one
]


def content(folder, pattern):
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob(pattern)}


def unlock_all(monkeypatch):
    """As at the end of a process."""
    monkeypatch.setattr("wpl_d2.checkpoint.run_folder._LOCKED", {})


@pytest.mark.slow
def test_a_run_that_was_stopped_everywhere_equals_one_that_was_not(tree, tmp_path, monkeypatch):
    for number in range(5):
        tree.mask(f"unlabeled{number}").write_bytes(b"no mask")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_or_evaluate(arguments(tree, straight))
    for number, stop in enumerate(STOPS):
        with monkeypatch.context() as patch, pytest.raises(StopHere):
            unlock_all(patch)
            stop_at(patch, *stop)
            train_or_evaluate(arguments(tree, stopped, resume=number > 0))
    unlock_all(monkeypatch)
    args = arguments(tree, stopped, resume=True)
    check_continued_run(args)
    train_or_evaluate(args)
    found, expected = (load_checkpoint(str(run / "model_final.pth"))["model"] for run in (stopped, straight))
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert content(stopped, "phases/*/pseudo_labels/*/*") == content(straight, "phases/*/pseudo_labels/*/*")

    # Half of the images were labeled by the first model, all others by the second one, with weights.
    labels = {path.stem: path.parents[2].name for path in straight.glob("phases/*/pseudo_labels/labels/*")}
    assert sorted(labels.values()) == [*["reliable"] * 3, *["supervised"] * 2]
    scores = [json.loads(line) for line in (straight / "phases/supervised/image_scores.rank0.jsonl").open()]
    ranked = sorted(scores, key=lambda row: row["score"], reverse=True)
    assert {row["image_id"] for row in ranked[:2]} == {name for name, by in labels.items() if by == "supervised"}
    assert len(content(straight, "phases/*/pseudo_labels/weights/*")) == 5

    # The last training is one like any other, and so are those before it.
    assert load_model(str(straight / "model_final.pth"))[1]["config"].FRAMEWORK.NAME == "STPlusPlus"
    assert (straight / "report.html").is_file() and (straight / "metrics.json").is_file()
    for phase, steps in (("supervised", 6), ("reliable", 3)):
        folder = straight / "phases" / phase
        assert {"config.yaml", "metrics.json", "log.txt"} <= {path.name for path in folder.iterdir()}
        assert load_checkpoint(str(folder / "model_final.pth"))["iteration"] == steps - 1

    # It goes on as any other, too.
    with pytest.raises(InputError, match=r"phases/supervised holds a run with another config \(SOLVER.BASE_LR 0.02"):
        check_continued_run(arguments(tree, straight, "SOLVER.BASE_LR", 0.02, resume=True))
    with monkeypatch.context() as patch:
        stop_at(patch, Trainer, "run_step", 1)
        train_or_evaluate(arguments(tree, straight, resume=True))  # nothing is left to be done
        with pytest.raises(StopHere):
            train_or_evaluate(arguments(tree, straight))
    assert content(straight, "earlier/phases/*/finished").keys() and not content(straight, "phases/*/finished")
    assert {"config.yaml", "log.txt"} <= {path.name for path in straight.iterdir()}


@pytest.mark.slow
def test_st_learns_the_best_models_labels_of_all_images(tree, tmp_path):
    opts = ["FRAMEWORK.ST_PLUS_PLUS.SELECTIVE", False, "FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS", (4,)]
    opts += ["FRAMEWORK.ST_PLUS_PLUS.LABELER", "best", "TEST.EVAL_PERIOD", 2, "WEIGHTING.ENABLED", False]
    opts += ["RPPI.ENABLED", False, "MODEL.DETECTOR.MODE", "none", "SOLVER.GRAD_ACCUMULATION", 2]
    args = arguments(tree, tmp_path / "out", *opts)
    check_run(args)
    train_or_evaluate(args)
    assert [path.name for path in (tmp_path / "out/phases").iterdir()] == ["supervised"]
    folder = tmp_path / "out/phases/supervised"
    assert len(list(folder.glob("pseudo_labels/labels/*"))) == 5 and not list(folder.glob("pseudo_labels/weights/*"))
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.json").open()]
    assert any(row.get("loss_unsup", 0) > 0 for row in rows) and rows[-1]["sem_seg/mIoU"] >= 0
    exported = export_model(str(tmp_path / "out/model_final.pth"), "safetensors", tmp_path / "st.safetensors")
    assert exported.within_limits


def test_a_bucket_of_one_trainings_checkpoints_is_refused(tree):
    with pytest.raises(InputError, match=r"SOLVER.CHECKPOINT_BUCKET: has room for one training"):
        plan_of(tree, "SOLVER.CHECKPOINT_BUCKET", "s3://bucket/run")


def plan_of(tree, *opts):
    return make_plan(tree.cfg(*OPTS, "OUTPUT_DIR", "out", *opts))


def differences(cfg, other):
    return {key: value_of(other, key) for key in leaf_keys(cfg) if value_of(cfg, key) != value_of(other, key)}


def test_the_trainings_differ_by_what_they_are(tree):
    plan = plan_of(tree, "TEST.EVAL_PERIOD", 2)
    first, second = (phase.cfg for phase in plan.earlier)
    assert differences(tree.cfg(*OPTS, "OUTPUT_DIR", "out", "TEST.EVAL_PERIOD", 2), plan.last) == {
        "DATASETS.PSEUDO_LABELS": ("phases/supervised/pseudo_labels", "phases/reliable/pseudo_labels")
    }
    assert differences(plan.last, second) == {
        "DATASETS.PSEUDO_LABELS": ("../supervised/pseudo_labels",),
        "SOLVER.MAX_ITER": 3,
        "OUTPUT_DIR": "out/phases/reliable",
    }
    assert differences(plan.last, first) == {
        "FRAMEWORK.NAME": "STPlusPlusLabeler",
        "DATASETS.UNLABELED": (),
        "DATASETS.PSEUDO_LABELS": (),
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.UNLABELED_IMS_PER_BATCH": 0,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.CHECKPOINT_STEPS": (2, 4),
        "TEST.EVAL_PERIOD": 3,
        "OUTPUT_DIR": "out/phases/supervised",
    }
    # Each of them can be run again by its own config.
    assert [make_plan(cfg) for cfg in (first, second)] == [([], first), ([], second)]


def test_by_default_all_trainings_have_as_many_epochs(tree):
    every = plan_of(tree, "SOLVER.MAX_ITER", 100, "FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS", ())
    # Of the last one: 100 steps of 2 of 5 images. Of the first one twice as many, since the labeled images are few.
    assert [phase.cfg.SOLVER.MAX_ITER for phase in every.earlier] == [2 * 40 * 3 // 4, 50]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MAX_ITERS", (5,)], r"MAX_ITERS: \(5,\), but 2 trainings come before the last one"),
        (["MAX_ITERS", (1, 2)], r"give each a number of steps, 2 or more"),
        (["LABELER", "best"], "LABELER: best, but no evaluation says which one is; set TEST.EVAL_PERIOD"),
        (["RELIABLE", 0.1], "RELIABLE: 0.1 of 5 unlabeled images is none; raise it"),
    ],
)
def test_plans_that_cannot_be_are_refused(tree, opts, message):
    with pytest.raises(InputError, match=message):
        plan_of(tree, f"FRAMEWORK.ST_PLUS_PLUS.{opts[0]}", opts[1])


def test_other_methods_need_no_training_before_them(tree):
    cfg = tree.cfg("FRAMEWORK.NAME", "MeanTeacher")
    assert make_plan(cfg) == ([], cfg)


def test_a_plan_is_moved_aside_as_a_whole(tmp_path):
    marker = Path("phases/supervised/finished")
    (tmp_path / marker).parent.mkdir(parents=True)
    (tmp_path / marker).touch()
    check_folder_free(tmp_path)
    assert move_aside(tmp_path) is None
    assert move_aside(tmp_path, phases=True) == tmp_path / "earlier"
    assert (tmp_path / "earlier" / marker).is_file() and not (tmp_path / "phases").exists()
