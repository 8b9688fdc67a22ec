"""No step waits for its device: it runs on PyTorch's meta device, where there is nothing that could be waited for."""

import contextlib

import pytest
import torch
from detectron2.utils.events import EventStorage
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
    ST_PLUS_PLUS,
    U2PL,
    UNIMATCH,
    UNIMATCH_V2,
    forbid_host_sync,
)

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader
from wpl_d2.structures import Detections
from wpl_d2.weighting import SCORE_REGISTRY
from wpl_d2.weighting.refinement import REFINEMENTS

ON_DEVICE = ["INPUT.STRONG.DEVICE", "model"]
OHEM = ["FRAMEWORK.OHEM.ENABLED", True, "FRAMEWORK.OHEM.MIN_KEPT", 100]
CACHED = ["MODEL.DETECTOR.MODE", "cached", "RPPI.ENABLED", True]
HOSTS = {
    "Supervised": [*OHEM, "FRAMEWORK.NAME", "Supervised", "WEIGHTING.ENABLED", False],
    "MeanTeacher": [*ON_DEVICE, *OHEM, "WEIGHTING.LABELED_FROM", "teacher"],
    "UniMatch": [*ON_DEVICE, *OHEM, *UNIMATCH],
    "AugSeg": [*ON_DEVICE, *OHEM, *AUGSEG],
    "CPS": [*ON_DEVICE, *OHEM, *CPS],
    "CorrMatch": [*ON_DEVICE, *OHEM, *CORRMATCH],
    "DAW": [*ON_DEVICE, *OHEM, *DAW],
    "PrevMatch": [*ON_DEVICE, *OHEM, *PREVMATCH],
    "PC2Seg": [*ON_DEVICE, *OHEM, *PC2SEG],
    "PSMT": [*ON_DEVICE, *OHEM, *PSMT_PHASES, "WEIGHTING.LABELED_FROM", "teacher"],
    "SemiVL": [*ON_DEVICE, *OHEM, *SEMIVL],
    "UniMatchV2": [*ON_DEVICE, *OHEM, *UNIMATCH_V2],
    "PCR": [*ON_DEVICE, *OHEM, *PCR],
    "PseudoSeg": [*ON_DEVICE, *OHEM, *PSEUDOSEG],
    "STPlusPlus": [*ON_DEVICE, *OHEM, *ST_PLUS_PLUS],
    "AEL": [*OHEM, *AEL],
    "AllSpark": [*ON_DEVICE, *OHEM, *ALLSPARK],
    "U2PL": [*ON_DEVICE, *OHEM, *U2PL],
}


def check_steps(tree, monkeypatch, *opts, boxes=()):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # unknown on meta
    cfg = tree.cfg(*SMALL, *opts)
    batch = next(build_train_loader(cfg))
    for item in batch["unlabeled"]:
        corners = torch.tensor([[0.0, 0, 30, 30], [10, 10, 60, 40]])
        item |= {"pseudo_labels": item["valid"].long(), "pseudo_weight": item["valid"].float()}
        item["detections"] = Detections(corners, torch.tensor([0.9, 0.4]), torch.tensor([2, 1]))
    cfg.merge_from_list([*boxes, "MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        framework = build_framework(cfg)
    with EventStorage(), forbid_host_sync(on_meta=True):
        for _ in range(2):  # the second one with what the first one left
            losses = framework(batch)
            torch.stack(list(losses.values())).sum().backward()
            framework.after_step()
            framework.iteration += 1


@pytest.mark.parametrize("name", HOSTS)
def test_a_step_never_waits_for_the_device(tree, monkeypatch, name):
    check_steps(tree, monkeypatch, *HOSTS[name])


@pytest.mark.parametrize("kind", [score.kind for _, score in SCORE_REGISTRY])
def test_no_weight_does(tree, monkeypatch, kind):
    check_steps(tree, monkeypatch, "WEIGHTING.PER_CLASS", True, boxes=[*CACHED, "WEIGHTING.KIND", (kind,)])


@pytest.mark.parametrize("name", REFINEMENTS)
def test_no_refinement_does(tree, monkeypatch, name):
    check_steps(tree, monkeypatch, boxes=[*CACHED, "PSEUDO_LABEL.REFINE", name])
