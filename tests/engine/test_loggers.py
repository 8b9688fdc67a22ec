"""The progress line, and the loggers of LOGGERS."""

import importlib.util
import json
import logging
import re

import pytest
import torch
from helpers import SMALL

from wpl_d2.engine import Trainer
from wpl_d2.engine.writers import check_loggers
from wpl_d2.utils.errors import InputError


def train(tree, output, *opts, resume=False):
    plain = [*SMALL, "WEIGHTING.ENABLED", False, "FRAMEWORK.NAME", "Supervised", "DATASETS.UNLABELED", ()]
    cfg = tree.cfg(*plain, "TEST.EVAL_PERIOD", 4, *opts, "OUTPUT_DIR", str(output))
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()


@pytest.fixture
def evaluated(monkeypatch):
    monkeypatch.setattr("wpl_d2.engine.trainer.evaluate", lambda *_: {"sem_seg": {"mIoU": 45.678, "IoU-a (b)": 1.0}})


def test_progress_is_a_line(tree, tmp_path, evaluated, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Trainer, "LOG_PERIOD", 4)
    train(tree, tmp_path / "out", "SOLVER.MAX_ITER", 9)
    lines = [record.getMessage() for record in caplog.records if record.name == "wpl_d2.engine.writers"]
    number = r"\d+(\.\d+)?(e[+-]\d+)?"
    assert re.fullmatch(
        rf"step 4/9  loss {number} \(sem_seg {number}\)  mIoU 45\.68  {number} images/s  0:\d\d:\d\d to go.*", lines[0]
    )
    assert [line.split("  ")[0] for line in lines] == ["step 4/9", "step 8/9", "step 9/9"]
    assert "0:00:00 to go" in lines[2]
    last = json.loads((tmp_path / "out/metrics.json").read_text().splitlines()[-2])
    assert last["eta_seconds"] == 0


@pytest.mark.slow
def test_mlflow_keeps_the_scalars_of_a_run_and_of_its_resume(tree, tmp_path, evaluated, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra wpl_d2[mlflow] is not installed")
    store = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for steps in (4, 6):
        train(tree, tmp_path / "out", "SOLVER.MAX_ITER", steps, "LOGGERS", ("mlflow",), resume=steps > 4)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs(["0"])
    assert run.info.run_name == "out" and run.info.status == "FINISHED"
    assert run.data.metrics["sem_seg/mIoU"] == pytest.approx(45.678)
    assert run.data.metrics["sem_seg/IoU-a _b_"] == 1.0
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "total_loss")]
    assert steps == [3, 5]
    assert "MAX_ITER: 6" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml")
    assert not list((tmp_path / "out").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_wandb_keeps_the_scalars_offline(tree, tmp_path, evaluated, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wpl_d2[wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tree, tmp_path / "out", "SOLVER.MAX_ITER", 4, "LOGGERS", ("tensorboard", "wandb"))
    (file,) = (tmp_path / "out/wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"sem_seg/mIoU" in content and b"45.678" in content and b"total_loss" in content
    assert (tmp_path / "out/wandb_run").read_text() in file.name
    assert list((tmp_path / "out").glob("events.out.tfevents.*"))


def test_a_logger_that_is_not_installed_is_named(tree, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    check_loggers(tree.cfg("LOGGERS", ("tensorboard",)))
    with pytest.raises(InputError, match=r"^LOGGERS: wandb is not installed; `pip install 'wpl_d2\[wandb\]'`"):
        check_loggers(tree.cfg("LOGGERS", ("tensorboard", "wandb")))
