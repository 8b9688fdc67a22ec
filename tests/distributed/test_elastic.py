"""torchrun starts a run again that has lost a process: by the script of the documentation, with gloo on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL

from wpl_d2.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# Is found in place of nothing by each process as it starts.
DIES_ONCE = """
import os, signal
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    import wpl_d2.engine.trainer as trainer
    step = trainer.Trainer.run_step
    def run_step(self):
        if self.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self)
    trainer.Trainer.run_step = run_step
"""


def train(tree, folder, **environment):
    """Train 5 steps in two processes, with a checkpoint after each second one; returns the weights and the log."""
    options = [
        *SMALL,
        "MODEL.WEIGHTS",
        "",
        "SOLVER.MAX_ITER",
        5,
        "SOLVER.CHECKPOINT_PERIOD",
        2,
        "OUTPUT_DIR",
        folder,
        "SEED",
        3,
    ]
    options += ["DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.UNLABELED_IMS_PER_BATCH", 2]
    words = [str(option) for option in options]
    bin = str(Path(sys.executable).parent)
    environment = {**os.environ, "GPUS": "2", "PORT": "0", "PATH": f"{bin}:{os.environ['PATH']}", **environment}
    command = ["bash", ROOT / "docs/examples/train_torchrun.sh", tree.yaml, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_checkpoint(str(folder / "model_final.pth"))["model"], done.stdout + done.stderr


def test_a_run_that_lost_a_process_goes_on_to_the_same_weights(tree, tmp_path):
    straight, _ = train(tree, tmp_path / "straight", PYTHONPATH=str(ROOT))
    (tmp_path / "sitecustomize.py").write_text(DIES_ONCE)
    restarted, log = train(tree, tmp_path / "restarted", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert "Training from iteration 2 to 5" in log
    assert straight.keys() == restarted.keys()
    assert [name for name, value in straight.items() if not torch.equal(value, restarted[name])] == []
