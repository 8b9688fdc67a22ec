"""ST++ on two processes, which share out scores and labels."""

import argparse
import hashlib
from unittest import mock

import pytest
import torch
from detectron2.utils import comm
from helpers import SMALL, SMALL_DETECTOR, ST_PLUS_PLUS

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.cli.train_net import train_or_evaluate
from wpl_d2.data.pseudo_label_store import PseudoLabelStore
from wpl_d2.engine import Trainer, launch

OPTS = [
    *(*SMALL, *SMALL_DETECTOR, *ST_PLUS_PLUS, "RPPI.CONF", 0.0, "SOLVER.BASE_LR", 0.01, "SEED", 3),
    *("SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 4, "SOLVER.GRAD_ACCUMULATION", 2),
    *("SOLVER.MAX_ITER", 2, "FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS", (3, 3), "SOLVER.CHECKPOINT_PERIOD", 1),
    *("FRAMEWORK.ST_PLUS_PLUS.LABELER", "last", "FRAMEWORK.ST_PLUS_PLUS.SCALES", (1.0,), "DATALOADER.NUM_WORKERS", 0),
]


def arguments(tree, output):
    words = [*OPTS, "DATASETS.DESCRIPTION", tree.yaml, "OUTPUT_DIR", output]
    return argparse.Namespace(
        **{"config_file": "", "opts": [str(word) for word in words], "resume": False, "eval_only": False},
        **{"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"},
    )


class StopHere(Exception):
    pass


def train_and_compare(args):
    """Train, and check that both ranks end each training with the same framework; how many these were is returned."""
    states = []
    train = Trainer.train

    def remembered(trainer):
        results = train(trainer)
        state = [value.float().contiguous().numpy().tobytes() for value in trainer.framework.state_dict().values()]
        states.append(hashlib.sha256(b"".join(state)).hexdigest())
        return results

    with mock.patch.object(Trainer, "train", remembered):
        train_or_evaluate(args)
    first, second = comm.all_gather(states)
    assert first == second
    return len(states)


def train_straight_and_stopped(args):
    """In each process: train straight; then stop when an image has been labeled, and go on."""
    straight, stopped = (argparse.Namespace(**vars(args) | {"opts": opts}) for opts in args.opts)
    assert train_and_compare(straight) == 3
    write = PseudoLabelStore.write

    def stop(*labels):
        write(*labels)
        raise StopHere

    with mock.patch.object(PseudoLabelStore, "write", stop), pytest.raises(StopHere):
        train_or_evaluate(stopped)
    stopped.resume = True
    assert train_and_compare(stopped) == 3


@pytest.mark.slow
def test_a_plan_on_two_processes_resumes_exactly(tree, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    args = arguments(tree, straight)
    args.opts = [args.opts, arguments(tree, stopped).opts]
    launch(train_straight_and_stopped, args)
    found, expected = (load_checkpoint(str(run / "model_final.pth"))["model"] for run in (stopped, straight))
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    for run in (straight, stopped):
        scores = [path.read_text() for path in sorted(run.glob("phases/supervised/image_scores.rank*.jsonl"))]
        assert [text.count("\n") for text in scores] == [3, 2]
        assert len(list(run.glob("phases/*/pseudo_labels/weights/*.png"))) == 5
    labels = [
        {p.parts[-4:]: p.read_bytes() for p in run.glob("phases/*/pseudo_labels/*/*")} for run in (straight, stopped)
    ]
    assert labels[0] == labels[1]
