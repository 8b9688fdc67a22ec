"""Training where processes are not forked, as on macOS: loaders' workers begin with what is pickled alone."""

import multiprocessing

import pytest
import torch
from helpers import AEL, AUGSEG, SMALL, SMALL_DETECTOR, SMALL_FPN, U2PL, UNIMATCH

from wpl_d2.engine import Trainer

pytestmark = pytest.mark.slow
FRAMEWORKS = {
    "Supervised": ["FRAMEWORK.NAME", "Supervised"],
    "MeanTeacher": [*SMALL_DETECTOR, "TEST.EVAL_PERIOD", 1],
    "UniMatch": UNIMATCH,
    "AugSeg": AUGSEG,
    "U2PL": U2PL,
    "AEL": AEL,
    "Detector": SMALL_FPN,
}


@pytest.fixture
def spawned():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def trained(tree, output, *opts):
    output.mkdir()
    cfg = tree.cfg(*SMALL, *opts, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(output))
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_step_is_that_of_one_process(tree, tmp_path, spawned, name):
    alone, spawning = (
        trained(tree, tmp_path / str(workers), *FRAMEWORKS[name], "DATALOADER.NUM_WORKERS", workers)
        for workers in (0, 1)
    )
    ours, theirs = alone.framework.state_dict(), spawning.framework.state_dict()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert repr(alone.last_results) == repr(spawning.last_results)  # with NaNs
    assert bool(spawning.last_results) == (name == "MeanTeacher")
