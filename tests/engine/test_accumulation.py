"""Steps of several micro-batches (SOLVER.GRAD_ACCUMULATION)."""

import json

import pytest
import torch
from helpers import (
    AEL,
    ALLSPARK,
    AUGSEG,
    CORRMATCH,
    CPS,
    DAW,
    PC2SEG,
    PCR,
    PREVMATCH,
    PSEUDOSEG,
    PSMT_PHASES,
    SEMIVL,
    SMALL,
    SMALL_DETECTOR,
    SMALL_FPN,
    U2PL,
    UNIMATCH,
    UNIMATCH_V2,
)

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.data.loader import build_labeled_loader
from wpl_d2.engine import Trainer
from wpl_d2.utils.errors import InputError

BATCH = ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 4]
# Norms that know one image alone.
GN = [
    *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32]),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64, "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 64),
    *("INPUT.CROP_SIZE", (33, 65), "INPUT.SCALE_RANGE", (0.5, 1.0)),
]
GN_EVERYWHERE = [*GN, "MODEL.BACKBONE.NAME", "build_unified_resnet_backbone", "MODEL.RESNETS.NORM", "GN"]
SUPERVISED = ["FRAMEWORK.NAME", "Supervised", "DATASETS.UNLABELED", (), "WEIGHTING.ENABLED", False]
PLAIN_MEAN_TEACHER = ["FRAMEWORK.CUTMIX.PROB", 0.0, "WEIGHTING.ENABLED", False, "FRAMEWORK.THRESHOLD", 0.34]
HOSTS = {
    "Supervised": SUPERVISED,
    "MeanTeacher": SMALL_DETECTOR,
    "UniMatch": UNIMATCH,
    "AugSeg": AUGSEG,
    "CPS": CPS,
    "CorrMatch": CORRMATCH,
    "DAW": DAW,
    "PrevMatch": PREVMATCH,
    "PC2Seg": PC2SEG,
    "PSMT": PSMT_PHASES,
    "SemiVL": SEMIVL,
    "UniMatchV2": UNIMATCH_V2,
    "PCR": PCR,
    "PseudoSeg": PSEUDOSEG,
    "U2PL": U2PL,
    "AEL": AEL,
    "AllSpark": ALLSPARK,
    "Detector": [*SMALL_FPN, "DATASETS.UNLABELED", ()],
}


def train(tree, output, *opts, resume=False):
    cfg = tree.cfg(*SMALL, *BATCH, "SOLVER.BASE_LR", 0.01, *opts, "OUTPUT_DIR", str(output))
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    metrics = json.loads((output / "metrics.json").read_text().splitlines()[-1])
    return load_checkpoint(str(output / "model_final.pth"))["model"], metrics, trainer


@pytest.mark.parametrize("norms", [GN, pytest.param(GN_EVERYWHERE, marks=pytest.mark.slow)], ids=["head", "all"])
@pytest.mark.parametrize("own", [SUPERVISED, PLAIN_MEAN_TEACHER], ids=["Supervised", "MeanTeacher"])
def test_steps_equal_those_of_the_whole_batch(tree, tmp_path, own, norms):
    opts = [*norms, *own, "SOLVER.MAX_ITER", 3, "SOLVER.BASE_LR", 0.0005]
    whole, expected, trainer = train(tree, tmp_path / "whole", *opts)
    parts, found, accumulating = train(tree, tmp_path / "parts", *opts, "SOLVER.GRAD_ACCUMULATION", 2)
    torch.testing.assert_close(parts, whole, rtol=0.0, atol=1e-6)
    # Means over all steps, in which the images' valid and labeled pixels differ.
    names = {name for name in expected if name.startswith(("loss", "pseudo/", "total"))}
    assert len(accumulating.framework.last_step.weak_views) == (4 if own is PLAIN_MEAN_TEACHER else 0)
    assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names}, abs=1e-6)
    assert accumulating.averages.state_dict()["steps"] == trainer.averages.state_dict()["steps"]
    assert found["lr"] == expected["lr"] and found["iteration"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_every_host_trains_and_resumes_exactly(tree, tmp_path, name):
    opts = [*HOSTS[name], "SOLVER.GRAD_ACCUMULATION", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 3]
    straight, metrics, trainer = train(tree, tmp_path / "run", *opts)
    assert metrics["total_loss"] > 0
    (tmp_path / "run/last_checkpoint").write_text("model_0000001.pth")
    resumed, _, second = train(tree, tmp_path / "run", *opts, resume=True)
    assert second.start_iter == 2
    assert [key for key in straight if not torch.equal(straight[key], resumed[key])] == []
    if trainer.framework.weigher is not None:
        pushed = trainer.framework.weigher.labeled_bank.pushed
        assert 0 < pushed.sum() <= 3 * 4 * len(pushed)


def test_a_batch_that_does_not_divide_is_refused(tree):
    cfg = tree.cfg("SOLVER.IMS_PER_BATCH", 6, "SOLVER.GRAD_ACCUMULATION", 4)
    with pytest.raises(
        InputError, match=r"^SOLVER\.IMS_PER_BATCH: 6 images .* with 4 micro-batches each \(.*; take a multiple of 4"
    ):
        build_labeled_loader(cfg)
