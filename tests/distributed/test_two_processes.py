import os
import signal
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from helpers import SMALL, SMALL_DETECTOR, UNIMATCH, Tree

from wpl_d2.engine import Trainer, launch
from wpl_d2.engine.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
ARGS = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}


def train(args):
    """In each process: train, and check that every rank ended with the same framework."""
    opts = [*SMALL, *SMALL_DETECTOR, *args.own, "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 0]
    cfg = Tree(args.root, args.name).cfg(*opts)
    cfg.OUTPUT_DIR = str(args.output)
    cfg.TEST.EVAL_PERIOD = args.eval_period
    cfg.freeze()
    torch.manual_seed(comm.get_rank())  # what differs at the start must not last
    trainer = Trainer(cfg)
    trainer.resume_or_load(args.resume)
    forward = trainer.framework.forward

    def interrupted(batch):
        # One rank alone is asked to stop; all of them have to.
        if trainer.iter == args.stop_at and comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(batch)

    trainer.framework.forward = interrupted
    trainer.train()
    states = comm.all_gather(
        {key: value.double().sum().item() for key, value in trainer.framework.state_dict().items()}
    )
    assert states[0] == states[1]
    assert trainer.framework.weigher.labeled_bank.counts.sum() > 0
    if args.eval_period and comm.is_main_process():
        assert 0 <= trainer.last_results["sem_seg"]["mIoU"] <= 100


def run(tree, output, own, resume=False, stop_at=-1, eval_period=0):
    output.mkdir(exist_ok=True)
    args = {"root": tree.root, "name": tree.name, "output": output, "own": own, "eval_period": eval_period}
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        launch(train, SimpleNamespace(**ARGS, **args, resume=resume, stop_at=stop_at))
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize("own", [[], UNIMATCH], ids=["MeanTeacher", "UniMatch"])
def test_ranks_stay_equal_and_resume_is_exact(tree, tmp_path, own):
    run(tree, tmp_path / "straight", own, eval_period=4)
    with pytest.raises(SystemExit) as status:
        run(tree, tmp_path / "stopped", own, stop_at=1)
    assert status.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "stopped" / "last_checkpoint").read_text() == "model_0000001.pth"
    run(tree, tmp_path / "stopped", own, resume=True)
    straight, resumed = (
        load_checkpoint(str(tmp_path / name / "model_final.pth"))["model"] for name in ("straight", "stopped")
    )
    assert straight.keys() == resumed.keys()
    assert [key for key in straight if not torch.equal(straight[key], resumed[key])] == []
