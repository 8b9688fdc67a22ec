"""What a training records of its prototypes."""

import json

import numpy as np
import pytest
import torch
from helpers import SMALL

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.engine import Trainer, read_prototypes
from wpl_d2.utils.errors import InputError


def train(tree, output, *opts, resume=False):
    output.mkdir(exist_ok=True)
    schedule = ["SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "WEIGHTING.RECORD_PERIOD", 2]
    cfg = tree.cfg(*SMALL, *schedule, "OUTPUT_DIR", str(output), *opts)
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def test_prototypes_are_those_of_the_bank_and_survive_a_resume(tree, tmp_path):
    trainer = train(tree, tmp_path)
    record = read_prototypes(tmp_path)
    assert record.steps.tolist() == [2, 4]
    memory = trainer.framework.weigher.memory
    assert np.array_equal(record.prototypes[-1], memory.prototypes.numpy())
    assert np.array_equal(record.counts[-1], memory.counts.numpy())
    assert record.counts[-1].sum() > 0
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    assert load_checkpoint(str(tmp_path / "model_0000001.pth"))
    with (tmp_path / "prototypes.npy").open("ab") as stream:
        stream.write((tmp_path / "prototypes.npy").read_bytes()[:400])  # as of a killed process
    assert read_prototypes(tmp_path).steps.tolist() == [2, 4]
    train(tree, tmp_path, resume=True)
    for field, again in zip(record, read_prototypes(tmp_path), strict=True):
        assert np.array_equal(field, again)


@pytest.mark.parametrize("opts", [["WEIGHTING.RECORD_PERIOD", 0], ["WEIGHTING.ENABLED", False]])
def test_nothing_is_recorded_by_default_or_without_weights(tree, tmp_path, opts):
    train(tree, tmp_path, "SOLVER.MAX_ITER", 2, *opts)
    with pytest.raises(InputError, match="train with WEIGHTING"):
        read_prototypes(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])["iteration"] == 1
