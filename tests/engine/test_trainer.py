import json
import logging
import multiprocessing
import os
import resource
import signal
from functools import partial

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from helpers import AEL, LEARNED, SMALL, SMALL_DETECTOR, SMALL_FPN, UNIMATCH, files_up_to

from wpl_d2 import get_cfg
from wpl_d2.checkpoint import FrameworkCheckpointer, load_checkpoint, load_framework, load_model, loading
from wpl_d2.checkpoint import run_folder as output
from wpl_d2.checkpoint.metadata import build_metadata, restore_cfg
from wpl_d2.data import setup_datasets
from wpl_d2.engine import Trainer, report_results
from wpl_d2.engine.hooks import EvalHook
from wpl_d2.modeling.weight_files import read_weight_file
from wpl_d2.utils.errors import InputError

RUN = ["SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 0, "SOLVER.BASE_LR", 0.01]


def trainer_of(tree, output, *opts):
    cfg = tree.cfg(*SMALL, *RUN, *opts, "OUTPUT_DIR", str(output))
    output.mkdir(exist_ok=True)
    cfg.freeze()
    torch.manual_seed(0)
    return Trainer(cfg)


def run(tree, output, *opts, resume=False):
    trainer = trainer_of(tree, output, *opts)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def weights(output, name="model_final"):
    return load_checkpoint(str(output / f"{name}.pth"))["model"]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_what_an_early_evaluation_left_out_is_told_at_the_end(tree, tmp_path):
    trainer = trainer_of(tree, tmp_path / "out", "TEST.EVAL_PERIOD", 3)
    trainer.resume_or_load(False)
    whole = tree.image("val1").read_bytes()
    tree.image("val1").write_bytes(whole[:-60])
    evaluate = trainer.test
    seen = []

    def mended_after_the_first():
        results = evaluate()
        seen.append(results["left_out"]["images"])
        tree.image("val1").write_bytes(whole)
        return results

    # The hook holds the method as it was.
    (hook,) = (hook for hook in trainer._hooks if isinstance(hook, EvalHook))
    hook._func = mended_after_the_first
    results = trainer.train()
    assert seen == [1, 0]
    with pytest.raises(SystemExit) as end:
        report_results(trainer.cfg, results, trainer.framework)
    assert end.value.code == 1
    assert (tmp_path / "out/preview.png").is_file() and (tmp_path / "out/model_final.pth").is_file()


class StopAfter:
    """A signal that arrives during the step after `steps` others."""

    def __init__(self, trainer, steps, signum=signal.SIGTERM):
        forward = trainer.framework.forward

        def interrupted(batch):
            if trainer.iter == steps - 1:
                os.kill(os.getpid(), signum)
            return forward(batch)

        trainer.framework.forward = interrupted


@pytest.mark.parametrize(
    ("own", "workers", "signum"),
    [
        ([], 0, signal.SIGINT),
        ([], 2, signal.SIGTERM),
        (SMALL_DETECTOR, 0, signal.SIGTERM),
        (SMALL_DETECTOR, 2, signal.SIGTERM),
        ([*SMALL_DETECTOR, *UNIMATCH], 0, signal.SIGTERM),
        (AEL, 2, signal.SIGTERM),
        (LEARNED, 2, signal.SIGTERM),
    ],
    ids=["ppw-0-ctrl_c", "ppw-2", "wpl-0", "wpl-2", "unimatch_wpl-0", "ael_ppw-2", "learned-2"],
)
def test_resume_after_a_signal_is_exact(tree, tmp_path, own, workers, signum):
    opts = [*own, "DATALOADER.NUM_WORKERS", workers]
    run(tree, tmp_path / "straight", *opts)
    stopped = trainer_of(tree, tmp_path / "stopped", *opts)
    StopAfter(stopped, 3, signum)
    with pytest.raises(SystemExit) as status:
        stopped.train()
    assert status.value.code == 128 + signum
    assert (tmp_path / "stopped" / "last_checkpoint").read_text() == "model_0000002.pth"
    resumed = run(tree, tmp_path / "stopped", *opts, resume=True)
    assert resumed.start_iter == 3
    assert_same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))


def test_a_signal_during_an_evaluation_ends_at_once_and_loses_nothing(tree, tmp_path, monkeypatch):
    def leave(signum, frame):
        raise SystemExit(128 + signum)

    opts = ["SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 2]
    run(tree, tmp_path / "straight", *opts)
    stopped = trainer_of(tree, tmp_path / "stopped", *opts)
    after = []
    monkeypatch.setattr(
        "wpl_d2.engine.trainer.evaluate", lambda *_: (os.kill(os.getpid(), signal.SIGTERM), after.append("evaluated"))
    )
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit):
            stopped.train()
    finally:
        signal.signal(signal.SIGTERM, previous)
    monkeypatch.undo()
    assert not after
    assert (tmp_path / "stopped" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert run(tree, tmp_path / "stopped", *opts, resume=True).start_iter == 2
    assert_same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))


@pytest.mark.parametrize("own", [["SOLVER.MAX_ITER", 2], [*AEL, "SOLVER.MAX_ITER", 4]], ids=["ppw", "ael_ppw"])
def test_workers_change_nothing_and_end_with_the_training(tree, tmp_path, own):
    run(tree, tmp_path / "none", *own)
    before = set(multiprocessing.active_children())
    trainer = run(tree, tmp_path / "two", *own, "DATALOADER.NUM_WORKERS", 2)
    assert set(multiprocessing.active_children()) <= before
    del trainer  # not before: workers end with who uses them in any case
    assert_same(weights(tmp_path / "none"), weights(tmp_path / "two"))


def test_keeping_decoded_images_changes_nothing(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("wpl_d2.data.file_cache._SHARED_MEMORY", tmp_path)
    for cache in ("none", "ram", "disk"):
        run(tree, tmp_path / cache, "SOLVER.MAX_ITER", 2, "DATALOADER.CACHE", cache, "DATALOADER.NUM_WORKERS", 1)
        assert_same(weights(tmp_path / "none"), weights(tmp_path / cache))
    assert not list(tmp_path.glob("wpl_d2_*"))
    # Of two steps at least: the worker is ahead.
    assert len(list((tmp_path / "cache/images").glob("*.npy"))) >= 3 + 3 + 4


def test_a_loss_that_is_not_finite_stops_before_anything_is_updated(tree, tmp_path):
    trainer = trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 3)
    forward = trainer.framework.forward

    def diverging(batch):
        losses = forward(batch)
        if trainer.iter == 1:
            losses["loss_unsup"] = losses["loss_unsup"] * float("nan")
            parameters.update({key: value.clone() for key, value in trainer.framework.state_dict().items()})
        return losses

    parameters = {}
    trainer.framework.forward = diverging
    with pytest.raises(FloatingPointError, match=r"loss_unsup not finite at iteration 1; nothing was updated"):
        trainer.train()
    assert_same(parameters, trainer.framework.state_dict())
    assert not list((tmp_path / "out").glob("*.pth"))


def test_a_run_that_diverges_in_its_last_step_is_not_evaluated(tree, tmp_path, measured):
    trainer = trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 1)
    forward = trainer.framework.forward
    trainer.framework.forward = lambda batch: {name: loss * float("nan") for name, loss in forward(batch).items()}
    measured += [50.0]
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert measured == [50.0]


@pytest.mark.parametrize("own", [SMALL_DETECTOR, SMALL_FPN], ids=["shared", "alone"])
def test_a_detector_that_diverges_is_named(tree, tmp_path, own):
    trainer = trainer_of(tree, tmp_path / "out", *own, "SOLVER.MAX_ITER", 1)
    model = trainer.framework.student
    proposals = getattr(model, "detector", model).proposal_generator
    torch.nn.init.constant_(proposals.rpn_head.anchor_deltas.bias, float("nan"))
    with pytest.raises(FloatingPointError, match=r"loss_rpn_cls, .*loss_box_reg.* not finite at iteration 0"):
        trainer.train()
    # Others would wait for the gradients that this process did not give.
    assert [
        name for name, p in trainer.framework.student.named_parameters() if p.requires_grad and p.grad is None
    ] == []


def test_the_last_steps_losses_reach_the_metrics(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 2)
    last = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()][-1]
    assert last["iteration"] == 1
    assert {"total_loss", "loss_sem_seg", "loss_unsup", "pseudo/weight"} <= last.keys()
    assert last["total_loss"] == pytest.approx(last["loss_sem_seg"] + last["loss_unsup"])


def test_evaluation_best_and_kept_checkpoints(tree, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    opts = [
        "TEST.EVAL_PERIOD",
        2,
        "SOLVER.CHECKPOINT_PERIOD",
        1,
        "SOLVER.CHECKPOINTS_TO_KEEP",
        2,
        "TEST.STUDENT",
        True,
    ]
    trainer = run(tree, tmp_path / "out", *opts)
    kept = sorted(path.name for path in (tmp_path / "out").glob("*.pth"))
    assert kept == ["model_0000003.pth", "model_0000004.pth", "model_best.pth", "model_final.pth"]
    assert 0 <= trainer.last_results["sem_seg"]["mIoU"] <= 100
    assert "mIoU" in trainer.last_results["student"]["sem_seg"]
    best = load_checkpoint(str(tmp_path / "out" / "model_final.pth"))["trainer"]["hooks"]["BestCheckpointer"]
    assert f"Best sem_seg/mIoU: {best['best_metric']:.2f}, at iteration {best['best_iter']}" in caplog.text


def test_a_resumed_run_keeps_a_better_model_than_its_own(tree, tmp_path, monkeypatch):
    values = iter([60.0, 70.0, 65.0, 80.0])
    monkeypatch.setattr("wpl_d2.engine.trainer.evaluate", lambda *_: {"sem_seg": {"mIoU": next(values)}})
    opts = ["TEST.EVAL_PERIOD", 1, "SOLVER.CHECKPOINTS_TO_KEEP", 9]

    def best():
        content = load_checkpoint(str(tmp_path / "out" / "model_best.pth"))
        return content["trainer"]["hooks"]["BestCheckpointer"], content["iteration"]

    stopped = trainer_of(tree, tmp_path / "out", *opts)
    StopAfter(stopped, 3)
    with pytest.raises(SystemExit):
        stopped.train()
    assert best() == ({"best_metric": 70.0, "best_iter": 1}, 1)
    # As if it had been killed during its second evaluation.
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000001.pth")
    resumed = trainer_of(tree, tmp_path / "out", *opts, "SOLVER.MAX_ITER", 4)
    resumed.resume_or_load(True)
    assert resumed.start_iter == 2
    resumed.train()
    assert best() == ({"best_metric": 80.0, "best_iter": 4}, 4)
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_final.pth"


@pytest.fixture
def measured(monkeypatch):
    """What evaluations will measure, one after the other."""
    values = []
    monkeypatch.setattr("wpl_d2.engine.trainer.evaluate", lambda *_: {"sem_seg": {"mIoU": values.pop(0)}})
    return values


def test_a_damaged_best_model_stands_in_no_way_and_is_written_anew(tree, tmp_path, measured, caplog):
    out, opts = tmp_path / "out", ["TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2]
    measured += [60.0, 70.0]
    run(tree, out, *opts)
    (out / "model_best.pth").write_bytes((out / "model_best.pth").read_bytes()[:1000])
    measured += [50.0]
    assert run(tree, out, *opts[:2], "SOLVER.MAX_ITER", 3, resume=True).start_iter == 2
    assert load_checkpoint(str(out / "model_best.pth"))["iteration"] == 3
    assert "model_best.pth" in caplog.text and "writes it anew" in caplog.text
    torch.save({"run": os.system}, out / "model_best.pth")
    measured += [40.0]
    assert run(tree, out, *opts[:2], "SOLVER.MAX_ITER", 4, resume=True).start_iter == 3
    assert load_checkpoint(str(out / "model_best.pth"))["iteration"] == 4


def test_an_earlier_runs_checkpoints_are_put_aside_and_are_no_record(tree, tmp_path, measured):
    out, opts = tmp_path / "out", ["TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 2]
    measured += [90.0]
    run(tree, out, *opts)
    earlier = (out / "model_best.pth").read_bytes()
    stopped = trainer_of(tree, out, *opts)
    stopped.resume_or_load(False)
    StopAfter(stopped, 1)
    with pytest.raises(SystemExit):
        stopped.train()
    assert (out / "earlier" / "model_best.pth").read_bytes() == earlier
    measured += [50.0]
    assert run(tree, out, *opts, resume=True).start_iter == 1
    hooks = load_checkpoint(str(out / "model_best.pth"))["trainer"]["hooks"]
    assert hooks["BestCheckpointer"]["best_metric"] == 50.0


def test_a_checkpoint_alone_rebuilds_its_model(tree, tmp_path):
    trainer = run(tree, tmp_path / "out", *SMALL_DETECTOR, "SOLVER.MAX_ITER", 1)
    model, metadata = load_model(str(tmp_path / "out" / "model_final.pth"))
    assert metadata["classes"] == ["ground", "box", "ball"]
    assert metadata["preprocessing"]["format"] == "RGB"
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)
    trainer.framework.eval()
    with torch.no_grad():
        ours, theirs = (m([{"image": image}])[0]["sem_seg"] for m in (model, trainer.framework.teacher))
    assert torch.equal(ours, theirs)
    cfg = metadata["config"]
    cfg.MODEL.WEIGHTS = str(tmp_path / "out" / "model_final.pth")
    predicted = DefaultPredictor(cfg)(image.permute(1, 2, 0).numpy()[:, :, ::-1])
    torch.testing.assert_close(predicted["sem_seg"], ours)
    assert MetadataCatalog.get(cfg.DATASETS.TEST[0]).stuff_classes == metadata["classes"]


def test_a_config_of_another_version_is_read(caplog):
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TRAIN, cfg.OUTPUT_DIR = 7, ("a", "b"), "out"
    cfg.MODEL.TIMM.REMOVED, cfg.OLD = True, CfgNode({"KEY": 1})
    cfg.SOLVER.PICTURE_PERIOD, cfg.WEIGHTING.LABELED_FROM, cfg.WEIGHTING.SIMILARITY = 9, "labeler", "cosine"
    del cfg.WEIGHTING["K"], cfg["VIS_PERIOD"], cfg.WEIGHTING["KIND"]
    restored = restore_cfg(cfg.dump(), "old.pth")
    assert (restored.VIS_PERIOD, restored.WEIGHTING.LABELED_FROM) == (9, "teacher")
    assert restored.WEIGHTING.KIND == ("cosine",)
    message = "old.pth: its config has keys that this version does not know: MODEL.TIMM.REMOVED (True), OLD.KEY (1)"
    assert [record.getMessage() for record in caplog.records] == [message]
    assert (restored.SOLVER.MAX_ITER, restored.DATASETS.TRAIN, restored.OUTPUT_DIR) == (7, ("a", "b"), "out")
    assert restored.WEIGHTING.K == 5
    assert "OLD" not in restored
    assert "REMOVED" not in restored.MODEL.TIMM


def test_a_run_that_begins_anew_and_saves_nothing_resumes_from_nothing(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    trainer_of(tree, tmp_path / "out").resume_or_load(False)
    resumed = trainer_of(tree, tmp_path / "out")
    resumed.resume_or_load(True)
    assert resumed.start_iter == 0


def test_only_a_training_clears_away_what_a_cut_save_left(tree, tmp_path):
    trainer = trainer_of(tree, tmp_path / "out")
    saving = tmp_path / "out" / "model_final.tmp"
    saving.write_bytes(b"half")
    FrameworkCheckpointer(trainer.framework, trainer.cfg)
    assert saving.exists()


@pytest.mark.parametrize("name", ["WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR"])
def test_every_schedule_goes_on_where_it_was_and_as_its_config_says(tree, tmp_path, name):
    opts = ["SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.STEPS", (4,), "SOLVER.WARMUP_ITERS", 0]
    rates = {}
    for out, parts in (("straight", [6]), ("longer", [2, 6])):
        for length in parts:
            trainer = trainer_of(tree, tmp_path / out, *opts, "SOLVER.MAX_ITER", length)
            trainer.resume_or_load(True)
            trainer.train()
        lines = (tmp_path / out / "metrics.json").read_text().splitlines()
        rates[out] = json.loads(lines[-1])["lr"]
        assert trainer.iter == 6
    assert rates["longer"] == rates["straight"] > 0


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.CHECKPOINT_PERIOD", 2)
    final = tmp_path / "out" / "model_final.pth"
    final.write_bytes(final.read_bytes()[:1000])
    resumed = trainer_of(tree, tmp_path / "out", "SOLVER.CHECKPOINT_PERIOD", 2)
    resumed.resume_or_load(True)
    assert resumed.start_iter == 4


def test_a_save_that_is_cut_short_leaves_the_previous_file(tree, tmp_path, monkeypatch):
    trainer = run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    before = weights(tmp_path / "out")
    monkeypatch.setattr(torch, "save", lambda data, file: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.checkpointer.save("model_final")
    monkeypatch.undo()
    assert_same(before, weights(tmp_path / "out"))
    assert list((tmp_path / "out").glob("*.tmp"))
    trainer_of(tree, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_disk_that_gets_full_ends_the_run_in_one_line_and_nothing_is_lost(tree, tmp_path, caplog):
    opts = ["SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 1]
    run(tree, tmp_path / "straight", *opts)
    trainer = trainer_of(tree, tmp_path / "out", *opts)
    forward = trainer.framework.forward

    def filling(batch):
        if trainer.iter == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return forward(batch)

    trainer.framework.forward = filling
    with (
        files_up_to(resource.RLIM_INFINITY),
        pytest.raises(InputError, match=r"model_0000002\.pth: cannot be written \(File too large\); the disk or"),
    ):
        trainer.train()
    assert "Exception during training" not in caplog.text
    left = {path.name for path in (tmp_path / "out").iterdir() if path.suffix in (".pth", ".tmp")}
    assert left == {"model_0000000.pth", "model_0000001.pth"}
    assert run(tree, tmp_path / "out", *opts, resume=True).start_iter == 2
    assert_same(weights(tmp_path / "straight"), weights(tmp_path / "out"))


def test_a_run_without_room_for_a_checkpoint_does_not_begin(tree, tmp_path, monkeypatch):
    trainer = trainer_of(tree, tmp_path / "out")
    monkeypatch.setattr("wpl_d2.checkpoint.run_folder.free_space", lambda _: 10**6)
    trainer.framework.forward = None
    with pytest.raises(InputError, match=r"^OUTPUT_DIR: \S+ has 976.6 KiB free, and one checkpoint takes \d+\.\d MiB"):
        trainer.train()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_room_that_is_looked_for_is_that_of_a_checkpoint(tree, tmp_path, monkeypatch, optimizer):
    asked = []
    monkeypatch.setattr(FrameworkCheckpointer, "check_disk_space", lambda self, size, keep: asked.append((size, keep)))
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1, "SOLVER.OPTIMIZER", optimizer, "SOLVER.CHECKPOINTS_TO_KEEP", 5)
    ((size, keep),) = asked
    assert keep == 5
    assert size == pytest.approx((tmp_path / "out" / "model_final.pth").stat().st_size, rel=0.02)


def test_a_checkpoint_of_another_optimizer_is_refused(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    with pytest.raises(InputError, match=r"^SOLVER\.OPTIMIZER: the checkpoint's is another one"):
        run(tree, tmp_path / "out", "SOLVER.OPTIMIZER", "AdamW", resume=True)


def test_a_folder_is_held_while_it_is_trained_in(tree, tmp_path):
    trainer = trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    forward, held = trainer.framework.forward, []
    trainer.framework.forward = lambda batch: (held.append(set(output._LOCKED)), forward(batch))[1]
    trainer.train()
    place = (tmp_path / "out").resolve()
    assert [place in folders for folders in held] == [True] and place not in output._LOCKED


def test_each_of_three_runs_in_a_folder_keeps_what_is_its_own(tree, tmp_path):
    out = tmp_path / "out"
    for number in range(3):
        run(tree, out, "SOLVER.MAX_ITER", 2 + number)
    for number, folder in enumerate((out / "earlier", out / "earlier_2", out)):
        assert load_checkpoint(str(folder / "model_final.pth"))["iteration"] == 1 + number
        lines = (folder / "metrics.json").read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in lines] == [1 + number]
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_a_checkpoint_of_another_model_is_refused(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    other = trainer_of(tree, tmp_path / "out", "WEIGHTING.BANK_SIZE", 128)
    with pytest.raises(InputError, match=r"^\S*model_final\.pth: the checkpoint is of another model"):
        other.resume_or_load(True)


def test_a_checkpoint_of_another_head_is_refused_by_name(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1, "MODEL.AUX_HEAD.ENABLED", True)
    other = trainer_of(tree, tmp_path / "out", "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", True)
    words = r"^\S*model_final\.pth: is of another .* has an auxiliary head .* lacks a norm of ASPP's pooling"
    with pytest.raises(InputError, match=words):
        other.resume_or_load(True)


@pytest.mark.parametrize("aligned", [True, False])
def test_a_model_that_this_version_would_compute_otherwise_is_refused(tree, tmp_path, aligned):
    """Before MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM the decoder resized without regard for ALIGN_CORNERS."""
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1, "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", aligned)
    path = tmp_path / "out" / "model_final.pth"
    load_model(str(path))
    content = load_checkpoint(str(path))
    config = CfgNode.load_cfg(content["config"])
    del config.MODEL.SEM_SEG_HEAD["ASPP_POOL_NORM"]
    torch.save({**content, "config": config.dump()}, path)
    if not aligned:
        load_model(str(path))
        return
    with pytest.raises(
        InputError, match=r"model_final.pth: its model resized .* without MODEL.SEM_SEG_HEAD.ALIGN_CORNERS"
    ):
        load_model(str(path))
    with pytest.raises(InputError, match="train it anew"):
        trainer_of(tree, tmp_path / "out").resume_or_load(True)


def test_a_checkpoint_of_another_class_count_is_refused_in_words(tree, tmp_path):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    tree.name += "_four"
    tree.describe(classes=["ground", "box", "ball", "cup"])
    other = trainer_of(tree, tmp_path / "out")
    with pytest.raises(InputError, match=r"^\S*model_final\.pth: the checkpoint has 3 classes, the config 4"):
        other.resume_or_load(True)


def test_weights_start_from_a_checkpoint(tree, tmp_path, monkeypatch):
    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1)
    path = str(tmp_path / "out" / "model_final.pth")
    opened = []
    monkeypatch.setattr(loading, "read_weight_file", lambda name: opened.append(name) or read_weight_file(name))
    tuned = trainer_of(tree, tmp_path / "tuned", "MODEL.WEIGHTS", path)
    tuned.resume_or_load(False)
    assert opened == [path]
    own, teacher = tuned.framework.student.state_dict(), weights(tmp_path / "out")
    assert all(torch.equal(value, teacher[f"teacher.{key}"]) for key, value in own.items())
    assert tuned.start_iter == 0


def test_a_data_set_without_names_gets_some(tree):
    cfg = tree.cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("somebody_elses",), ()
    metadata = build_metadata(cfg)
    assert metadata["classes"] == ["class 0", "class 1", "class 2"]
    assert len({tuple(color) for color in metadata["colors"]}) == 3


def test_a_data_set_of_other_code_without_names_is_trained_on_and_shown(tree, tmp_path):
    cfg = tree.cfg(*SMALL, *RUN, "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 1, "OUTPUT_DIR", str(tmp_path))
    names = []
    for key in ("TRAIN", "UNLABELED", "TEST"):
        names.append(f"somebody_elses_{tree.name}_{key}")
        DatasetCatalog.register(names[-1], partial(DatasetCatalog.get, cfg.DATASETS[key][0]))
        cfg.DATASETS[key] = (names[-1],)
    cfg.DATASETS.DESCRIPTION = ""
    setup_datasets(cfg)
    metadata = build_metadata(cfg)
    assert metadata["classes"] == ["class 0", "class 1", "class 2"]
    assert len({tuple(color) for color in metadata["colors"]}) == 3
    trainer = Trainer(cfg)
    report_results(cfg, trainer.train(), trainer.framework)
    assert (tmp_path / "preview.png").is_file()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    with pytest.raises(InputError, match=r"NUM_CLASSES: 4, but somebody_elses_.* has names for 3 classes"):
        setup_datasets(cfg)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"model": {}, "run": os.system}, path)
    with pytest.raises(InputError, match=r"bad.pth: holds more than .*\(\w+\.system\)"):
        load_checkpoint(str(path))


def test_pictures_reach_the_event_file(tree, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 2, "VIS_PERIOD", 2)
    events = EventAccumulator(str(tmp_path / "out")).Reload()
    of_unlabeled = {f"unlabeled/{name}" for name in ("prediction", "pseudo_label", "weight")}
    assert set(events.Tags()["images"]) == {"labeled/prediction", "labeled/truth", *of_unlabeled}
    assert "total_loss" in events.Tags()["scalars"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(tree, tmp_path, dtype):
    opts = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype, "SOLVER.MAX_ITER", 1]
    if dtype == "float16":
        with pytest.raises(InputError, match="float16 needs a GPU"):
            trainer_of(tree, tmp_path / "out", *opts)
    else:
        run(tree, tmp_path / "out", *opts)
        assert all(v.dtype != torch.bfloat16 for v in weights(tmp_path / "out").values())


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_learning_rates_of_the_parts(tree, tmp_path, optimizer):
    opts = [*SMALL_DETECTOR, "SOLVER.DETECTOR_LR_FACTOR", 2.0, "SOLVER.OPTIMIZER", optimizer]
    trainer = trainer_of(tree, tmp_path / "out", *opts)
    assert isinstance(trainer.optimizer, getattr(torch.optim, optimizer))
    names = {id(parameter): name for name, parameter in trainer.framework.student.named_parameters()}
    factors = {"backbone": 1.0, "sem_seg_head": 10.0, "detector": 2.0}
    seen = set()
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            part = names[id(parameter)].split(".")[0]
            assert group["initial_lr"] == pytest.approx(0.01 * factors[part])
            seen.add(id(parameter))
    assert seen == names.keys()


def test_what_is_kept_of_training_images_is_not_asked_for_in_evaluation(tree, tmp_path):
    trained = run(tree, tmp_path / "run", *AEL, "SOLVER.MAX_ITER", 1)
    elsewhere = ["DATASETS.UNLABELED", (), "SOLVER.UNLABELED_IMS_PER_BATCH", 4]
    cfg = tree.cfg(*SMALL, *AEL, *elsewhere, "MODEL.WEIGHTS", str(tmp_path / "run" / "model_final.pth"))
    loaded = load_framework(cfg)
    assert_same(loaded.teacher.state_dict(), trained.framework.teacher.state_dict())
    assert_same(loaded.weigher.state_dict(), trained.framework.weigher.state_dict())
    with pytest.raises(InputError, match="of another model"):
        run(tree, tmp_path / "run", *AEL, "SOLVER.UNLABELED_IMS_PER_BATCH", 4, resume=True)


def test_gradients_are_clipped_without_the_factor_of_loss_scaling(tree, tmp_path):
    found = []
    for name, scale in (("plain", None), ("scaled", 2.0**12)):
        trainer = trainer_of(
            tree, tmp_path / name, "SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3
        )
        if scale:
            trainer._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.resume_or_load(False)
        trainer.max_iter = 2
        trainer.train()
        found.append(trainer.framework.student.state_dict())
    for key, plain in found[0].items():
        torch.testing.assert_close(found[1][key], plain)
