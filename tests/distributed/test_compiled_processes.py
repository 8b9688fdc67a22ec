"""Compiled steps of two processes."""

import functools
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from helpers import SMALL, Tree
from torch._dynamo.utils import counters

from wpl_d2.engine import Trainer, launch


def train(args, compiled):
    opts = [*SMALL, "FRAMEWORK.NAME", "Supervised", "WEIGHTING.ENABLED", False, "TEST.EVAL_PERIOD", 0]
    opts += ["SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 0]
    cfg = Tree(args.root, args.name).cfg(*opts, "MODEL.COMPILE", compiled)
    cfg.OUTPUT_DIR = str(args.output / str(compiled))
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.framework.student.parameters()])


def train_eager_and_compiled(args):
    # Steps are captured as ever, but run without the code that a compiler makes of them, which takes minutes.
    torch.compile = functools.partial(torch.compile, backend="aot_eager")
    eager = train(args, False)
    assert not counters["stats"]["unique_graphs"]
    compiled = train(args, True)
    assert counters["stats"]["unique_graphs"]
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
    first, second = comm.all_gather(compiled)
    assert torch.equal(first, second)


@pytest.mark.slow
def test_compiled_steps_of_two_processes_equal_eager_ones(tree, tmp_path):
    processes = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    launch(train_eager_and_compiled, SimpleNamespace(**processes, root=tree.root, name=tree.name, output=tmp_path))
