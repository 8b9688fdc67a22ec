"""Signals to a training, at any moment: what is trained is saved, one line is said, and no process is left."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
pytestmark = pytest.mark.slow


class Training:
    """A training that lasts, in a session of its own: all of its processes, loaders' workers too, are known by it."""

    def __init__(self, tree, folder, processes):
        self.out, self._said = folder / "out", folder / "said.txt"
        config = folder / "run.yaml"
        config.write_text(
            f"""
DATASETS: {{DESCRIPTION: {tree.yaml}, TRAIN: ["{tree.name}_labeled"], UNLABELED: ["{tree.name}_unlabeled"]}}
INPUT: {{CROP_SIZE: [48, 48]}}
MODEL: {{BACKBONE: {{NAME: build_timm_backbone}}, TIMM: {{NAME: test_resnet}}}}
SOLVER: {{MAX_ITER: 100000, CHECKPOINT_PERIOD: 100000, IMS_PER_BATCH: 4, UNLABELED_IMS_PER_BATCH: 4}}
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 1}}
VERSION: 2
"""
        )
        args = ["--config-file", config, "--num-gpus", processes, "OUTPUT_DIR", self.out]
        with self._said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(TRAIN_NET), *map(str, args)],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            )

    @property
    def said(self):
        return self._said.read_text()

    def wait_for(self, moment):
        deadline = time.monotonic() + 400
        while not moment(self):
            assert self.process.poll() is None and time.monotonic() < deadline, self.said[-5000:]
            time.sleep(0.02)

    def members(self):
        """All processes of the session that still run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(session) == self.process.pid and state != "Z":
                found.append(int(folder.name))
        return found

    def end(self):
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def group(training, signum):
    """As Ctrl-C in a terminal, or a scheduler."""
    os.killpg(training.process.pid, signum)


def each(training, signum):
    """As schedulers that know every process."""
    for pid in training.members():
        os.kill(pid, signum)


def launcher(training, signum):
    """As `kill`."""
    training.process.send_signal(signum)


def processes_start(training):
    return "no GPU here" in training.said


def ranks_are_there(training):
    return len(training.members()) >= 4  # this one, Python's resource tracker and two ranks


def workers_start(training):
    log = training.out / "log.txt"
    return log.exists() and "Starting training" in log.read_text()


def steps_are_done(training):
    metrics = training.out / "metrics.json"
    return metrics.exists() and metrics.stat().st_size


@pytest.fixture
def train(tree, tmp_path):
    started = []

    def start(processes):
        started.append(Training(tree, tmp_path, processes))
        return started[0]

    yield start
    started[0].end()


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
@pytest.mark.parametrize(
    ("processes", "moment", "to", "signum"),
    [
        (2, processes_start, group, signal.SIGINT),
        (2, ranks_are_there, group, signal.SIGTERM),
        (2, ranks_are_there, launcher, signal.SIGINT),
        (4, workers_start, group, signal.SIGINT),
        (2, workers_start, each, signal.SIGTERM),
        (1, workers_start, group, signal.SIGINT),
        (1, steps_are_done, each, signal.SIGTERM),
        (2, steps_are_done, group, signal.SIGTERM),
        (2, steps_are_done, launcher, signal.SIGINT),
    ],
)
def test_a_signal_ends_all_and_loses_nothing(train, processes, moment, to, signum):
    training = train(processes)
    training.wait_for(moment)
    to(training, signum)
    assert training.process.wait(timeout=200) == 128 + signum, training.said[-5000:]
    # Python's resource tracker sees a moment later that its pipe is closed.
    time.sleep(1)
    assert training.members() == []
    assert "Traceback" not in training.said, training.said[-3000:]
    steps = re.search(r"Stopped by signal \d+ after iteration", training.said)
    assert bool(steps) != ("stopped by " in training.said)  # one of them
    if moment in (workers_start, steps_are_done):
        assert steps
    if steps:
        saved = (training.out / "last_checkpoint").read_text()
        assert re.fullmatch(r"model_\d{7}\.pth", saved) and (training.out / saved).is_file()
