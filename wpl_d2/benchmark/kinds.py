"""What each kind of weight (WEIGHTING.KIND) costs, as a share of a plain training step."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from ..data.held_out import FIT_IMAGES
from ..frameworks import Framework, build_framework
from ..frameworks.pseudo_labels import gather_evidence
from ..structures import Detections
from ..weighting import SCORE_REGISTRY, Evidence, PixelWeigher
from .floor import now
from .step import Step

_BOXES = 20
"""Of each image, at random, in place of a detector's."""


def compare_kinds(cfg: Any, batch: Any, steps: int) -> dict[str, float]:
    """The time of a step's weights by each kind alone, beside the plain step, all taking turns.

    It is the weigher's, from the pseudo-labels to the state after the step, without the embeddings that are staged for
    the bank, which is full, and without a detector. `calibrated` has its share of a fit to `FIT_IMAGES` images.

    Args:
        cfg: complete, with its data sets registered; its weights are switched off and on.
        batch: of the config's loader.
        steps: measured steps of each kind.

    Returns:
        `plain_step_s` and, of each KIND, `KIND_share`, a fraction of it; on a CPU in seconds of CPU time.
    """
    plain = cfg.clone()
    plain.WEIGHTING.ENABLED = plain.RPPI.ENABLED = False
    cfg.WEIGHTING.ENABLED, cfg.RPPI.ENABLED, cfg.WEIGHTING.KIND = True, False, ("calibrated",)
    framework = build_framework(cfg)
    weigher = framework.weigher
    assert weigher is not None  # enabled above
    _fill(weigher)
    evidence = _evidence(framework, batch["unlabeled"], cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)

    def fit() -> None:
        framework.stage_held_out(batch["labeled"], len(batch["labeled"]))
        weigher.after_step()

    calls: dict[str, Callable[[], object]] = {"plain": Step(plain, batch), "fit": fit}
    for _, score in SCORE_REGISTRY:
        own = cfg.clone()
        own.WEIGHTING.KIND = (score.kind,)
        calls[score.kind] = _weigh(PixelWeigher.from_config(own).to(framework.device), evidence)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(steps + 1):
        for name, call in calls.items():
            start = now(framework.device)
            call()
            if number:  # the first is a warm-up
                times[name].append(now(framework.device) - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    step = seconds.pop("plain")
    fits = FIT_IMAGES / len(batch["labeled"]) / cfg.WEIGHTING.CALIBRATED.PERIOD
    seconds["calibrated"] += seconds.pop("fit") * fits
    return {"plain_step_s": step} | {f"{kind}_share": value / step for kind, value in seconds.items()}


def _evidence(framework: Framework, items: list[dict[str, Any]], classes: int) -> Evidence:
    with torch.no_grad():
        prediction = framework.teacher_forward(items)
    height, width = prediction.images.shape[-2:]
    size, found = torch.tensor([width, height, width, height]), []
    for _ in items:
        corners = torch.rand(_BOXES, 2, 2).sort(dim=1).values.flatten(1)
        found.append(Detections(corners * size, torch.rand(_BOXES), torch.randint(classes, (_BOXES,))))
    return gather_evidence(framework.pseudo_labeler, prediction, framework.stack(items, "valid"), found)


def _weigh(weigher: PixelWeigher, evidence: Evidence) -> Callable[[], None]:
    _fill(weigher)

    def weigh() -> None:
        weigher.weight(evidence)
        weigher.after_step()

    return weigh


def _fill(weigher: PixelWeigher) -> None:
    for bank in (weigher.labeled_bank, weigher.unlabeled_bank):
        classes, size, dim = bank.ring.shape
        device = bank.ring.device
        bank.push(torch.rand(classes * size, dim, device=device), torch.arange(classes, device=device).repeat(size))
