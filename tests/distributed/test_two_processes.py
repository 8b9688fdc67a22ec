import hashlib
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from helpers import (
    AEL,
    ALLSPARK,
    AUGSEG,
    CORRMATCH,
    CPS,
    DAW,
    LEARNED,
    PC2SEG,
    PCR,
    PREVMATCH,
    PSEUDOSEG,
    PSMT_PHASES,
    SEMIVL,
    SMALL,
    SMALL_DETECTOR,
    SMALL_VIT,
    U2PL,
    UNIMATCH,
    UNIMATCH_V2,
    Tree,
)

from wpl_d2.checkpoint import FrameworkCheckpointer, load_checkpoint, loading
from wpl_d2.engine import Trainer, launch
from wpl_d2.modeling.weight_files import DamagedFileError, read_weight_file
from wpl_d2.utils.errors import InputError

pytestmark = pytest.mark.slow
ARGS = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
MICRO_BATCHES = ["SOLVER.GRAD_ACCUMULATION", 2, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 4]
FRAMEWORKS = {
    "AEL": [*AEL, *MICRO_BATCHES],
    "AllSpark": [*ALLSPARK, *MICRO_BATCHES],
    "AugSeg": [*AUGSEG, *MICRO_BATCHES],
    "CPS": CPS,
    "CorrMatch": [*CORRMATCH, *MICRO_BATCHES],
    "DAW": [*DAW, *MICRO_BATCHES],
    "MeanTeacher": [],
    "MeanTeacher in micro-batches": [*LEARNED, *MICRO_BATCHES],
    "PrevMatch": [*PREVMATCH, *MICRO_BATCHES],
    "PC2Seg": [*PC2SEG, *MICRO_BATCHES],
    "PSMT": [*PSMT_PHASES, *MICRO_BATCHES],
    "PCR": [*PCR, *MICRO_BATCHES],
    "PseudoSeg": [*PSEUDOSEG, *MICRO_BATCHES],
    "SemiVL": [*SEMIVL, *MICRO_BATCHES, "SOLVER.BASE_LR", 0.01],
    "U2PL": [*U2PL, *MICRO_BATCHES],
    "UniMatch": [*UNIMATCH, *MICRO_BATCHES],
    "UniMatchV2": [*UNIMATCH_V2, *SMALL_VIT],
}


def trainer_of(args, name, run, eval_period=0, resume=False):
    opts = [*SMALL, *SMALL_DETECTOR, *FRAMEWORKS[name], "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 0]
    cfg = Tree(args.root, args.name).cfg(*opts, "TEST.EVAL_PERIOD", eval_period)
    output = args.output / name / run
    output.mkdir(parents=True, exist_ok=True)
    cfg.OUTPUT_DIR = str(output)
    cfg.freeze()
    torch.manual_seed(comm.get_rank())  # what differs at the start must not last
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    return trainer


def stop(args, name, ask):
    """Train until rank 1 asks for an end in the second step."""
    trainer = trainer_of(args, name, "stopped")
    forward = trainer.framework.forward

    def interrupted(batch):
        if trainer.iter == 1:
            ask(trainer)
        return forward(batch)

    trainer.framework.forward = interrupted
    trainer.train()


def ask_one_rank(trainer):
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def ask_the_launcher(trainer):
    if comm.get_rank() == 1:
        os.kill(os.getppid(), signal.SIGTERM)
    deadline = time.monotonic() + 60
    while not trainer.stop_request.signum and time.monotonic() < deadline:
        time.sleep(0.01)
    assert trainer.stop_request.signum == signal.SIGTERM


def diverge(args):
    """Train until rank 1 alone meets a loss that is not finite, of which nothing may stay on any rank."""
    trainer = trainer_of(args, "MeanTeacher", "diverged")
    forward, before = trainer.framework.forward, {}

    def poisoned(batch):
        losses = forward(batch)
        if trainer.iter == 1:
            before.update(digests(trainer.framework))
            if comm.get_rank() == 1:
                losses["loss_unsup"] = losses["loss_unsup"] * float("nan")
        return losses

    trainer.framework.forward = poisoned
    with pytest.raises(FloatingPointError, match="loss_unsup not finite at iteration 1"):
        trainer.train()
    assert before == digests(trainer.framework)


def stop_all(args):
    """In each process: all ranks stop when one diverges, when one is asked to, and when the launcher is (the end)."""
    diverge(args)
    *others, last = FRAMEWORKS
    for name in others:
        with pytest.raises(SystemExit):
            stop(args, name, ask_one_rank)
    stop(args, last, ask_the_launcher)


def digest(value):
    """A hash of a tensor's bytes, whatever its type."""
    return hashlib.sha256(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def digests(framework):
    return {key: digest(value) for key, value in framework.state_dict().items()}


def resume_all_and_train_straight(args):
    """In each process: train, and check that every rank ended with the same framework."""
    for name in FRAMEWORKS:
        for run, eval_period, resume in (("stopped", 0, True), ("straight", 4, False)):
            trainer = trainer_of(args, name, run, eval_period, resume)
            assert trainer.start_iter == (2 if resume else 0)
            trainer.train()
            states = comm.all_gather(digests(trainer.framework))
            assert states[0] == states[1]
            assert trainer.framework.weigher.labeled_bank.counts.sum() > 0
            if eval_period and comm.is_main_process():
                assert 0 <= trainer.last_results["sem_seg"]["mIoU"] <= 100


def test_ranks_stay_equal_and_resume_is_exact(tree, tmp_path):
    args = SimpleNamespace(**ARGS, root=tree.root, name=tree.name, output=tmp_path / "runs")
    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as status:
        launch(stop_all, args)
    assert status.value.code == 128 + signal.SIGTERM
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == handlers
    for name in FRAMEWORKS:
        assert (args.output / name / "stopped" / "last_checkpoint").read_text() == "model_0000001.pth"
    launch(resume_all_and_train_straight, args)
    for name in FRAMEWORKS:
        straight, resumed = (
            load_checkpoint(str(args.output / name / run / "model_final.pth"))["model"]
            for run in ("straight", "stopped")
        )
        assert straight.keys() == resumed.keys()
        assert [key for key in straight if not torch.equal(straight[key], resumed[key])] == []
        if FRAMEWORKS[name][: len(LEARNED)] == LEARNED:
            assert straight["weigher.scores.calibrated.fitted"] and straight["weigher.class_means.seen"].any()


class Loop:
    """As a trainer: it knows its step."""

    iteration = -1

    def state_dict(self):
        return {"iteration": self.iteration}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


def resume_what_all_can_read(args):
    """In each process: rank 1 cannot read the newest checkpoint, which nobody takes then."""
    cfg = Tree(args.root, args.name).cfg("OUTPUT_DIR", str(args.output))
    framework, loop = torch.nn.ModuleDict({"student": torch.nn.Linear(2, 2)}), Loop()
    framework.student = framework["student"]
    checkpointer = FrameworkCheckpointer(framework, cfg, trainer=loop)
    for loop.iteration in (1, 3):
        checkpointer.save(f"model_{loop.iteration:07d}")
    comm.synchronize()

    def read(name):
        if name.endswith("3.pth") and comm.get_rank() == 1:
            raise DamagedFileError(f"{name}: cannot be read")
        return read_weight_file(name)

    loading.read_weight_file = read
    assert checkpointer.resume() and loop.iteration == 1
    loading.read_weight_file = lambda name: read(name.replace("1.pth", "3.pth"))
    with pytest.raises(InputError, match=r"0000003\.pth: cannot be read \(and there is no other one"):
        checkpointer.resume()


def test_all_ranks_resume_from_the_same_checkpoint(tree, tmp_path):
    launch(resume_what_all_can_read, SimpleNamespace(**ARGS, root=tree.root, name=tree.name, output=tmp_path / "out"))


def refuse(args):
    """In each process: the main one finds something wrong while the other waits for it."""
    if comm.is_main_process():
        raise InputError("data: wrong; mend it")
    comm.synchronize()


def test_what_one_rank_refuses_ends_the_run_with_its_status(capfd):
    with pytest.raises(SystemExit) as status:
        launch(refuse, SimpleNamespace(**ARGS))
    assert status.value.code == 2
    assert "error: data: wrong; mend it\n" in capfd.readouterr().err
