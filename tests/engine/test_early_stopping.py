import logging
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from helpers import SMALL, Tree

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.config.validation import check_config
from wpl_d2.engine import Trainer, is_finished, launch, read_metrics
from wpl_d2.utils.errors import InputError

VALUES = {2: 40.0, 4: 50.0, 6: 50.0, 8: 45.0, 10: 60.0}
"""What an evaluation after so many steps measures: after 8 steps two in a row have not been better."""


def trainer_of(tree, output, *opts, resume=False):
    run = ["SOLVER.MAX_ITER", 10, "TEST.EVAL_PERIOD", 2, "SOLVER.EARLY_STOPPING.PATIENCE", 2]
    cfg = tree.cfg(*SMALL, "WEIGHTING.ENABLED", False, *run, *opts, "OUTPUT_DIR", str(output))
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    return trainer


@pytest.fixture
def evaluated(monkeypatch):
    """The steps after which a model was evaluated."""
    steps = []

    def evaluate(cfg, framework):
        steps.append(framework.iteration + 1)
        return {"sem_seg": {"mIoU": VALUES[steps[-1]]}}

    monkeypatch.setattr("wpl_d2.engine.trainer.evaluate", evaluate)
    return steps


def test_a_training_ends_when_its_evaluations_improve_no_more(tree, tmp_path, evaluated, caplog):
    caplog.set_level(logging.INFO)
    trainer = trainer_of(tree, tmp_path)
    results = trainer.train()
    assert evaluated == [2, 4, 6, 8] and trainer.ended_early
    assert results["sem_seg"]["mIoU"] == 45.0
    assert load_checkpoint(str(tmp_path / "model_final.pth"))["iteration"] == 7
    assert load_checkpoint(str(tmp_path / "model_best.pth"))["iteration"] == 3
    assert is_finished(read_metrics(tmp_path / "metrics.json"))
    assert "sem_seg/mIoU has not improved in 2 of 2 evaluations" in caplog.text
    assert "Exception" not in caplog.text


def test_an_ended_run_stays_so_unless_it_gets_more_patience(tree, tmp_path, evaluated):
    trainer_of(tree, tmp_path).train()
    again = trainer_of(tree, tmp_path, resume=True)
    again.framework.forward = None  # no step is done
    again.framework.iteration = 7  # for `evaluated`
    assert again.train()["sem_seg"]["mIoU"] == 45.0 and again.start_iter == 8
    evaluated.clear()
    patient = trainer_of(tree, tmp_path, "SOLVER.EARLY_STOPPING.PATIENCE", 3, resume=True)
    patient.train()
    assert evaluated == [10] and not patient.ended_early


@pytest.mark.parametrize("stopped_at", [3, 6, 8])
def test_a_resumed_run_ends_at_the_same_step(tree, tmp_path, evaluated, stopped_at):
    """After 6 and 8 steps the stop cancels an evaluation, which the resume makes up for."""
    stopped = trainer_of(tree, tmp_path)
    forward = stopped.framework.forward

    def interrupted(batch):
        if stopped.iter == stopped_at - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(batch)

    stopped.framework.forward = interrupted
    with pytest.raises(SystemExit):
        stopped.train()
    resumed = trainer_of(tree, tmp_path, resume=True)
    resumed.framework.iteration = stopped_at - 1  # for `evaluated`
    resumed.train()
    assert resumed.start_iter == stopped_at and resumed.ended_early
    assert evaluated == [2, 4, 6, 8]
    assert load_checkpoint(str(tmp_path / "model_final.pth"))["iteration"] == 7


@pytest.mark.parametrize(
    ("opts", "message"),
    [([], "counts evaluations, of which there are none"), (["TEST.EVAL_PERIOD", 2], "needs figures")],
)
def test_patience_needs_figures(tree, opts, message):
    cfg = tree.cfg(*opts, "SOLVER.EARLY_STOPPING.PATIENCE", 2, "TEST.EVALUATOR", "submission")
    with pytest.raises(InputError, match=rf"^SOLVER\.EARLY_STOPPING\.PATIENCE: {message}"):
        check_config(cfg)


def end_on_all_ranks(args):
    """In each process: the main one alone has figures, which do not improve."""
    values = iter([40.0, 30.0, 20.0])
    trainer = trainer_of(Tree(args.root, args.name), args.output)
    hook = trainer._hooks[-2]
    hook._evaluation._func = lambda: {"sem_seg": {"mIoU": next(values)}} if comm.is_main_process() else {}
    trainer.train()
    assert trainer.ended_early and trainer.iter == 6


@pytest.mark.slow
def test_all_ranks_end_together(tree, tmp_path):
    args = SimpleNamespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(end_on_all_ranks, SimpleNamespace(**vars(args), root=tree.root, name=tree.name, output=tmp_path))
    assert load_checkpoint(str(tmp_path / "model_final.pth"))["iteration"] == 5
