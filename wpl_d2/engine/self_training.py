"""The plan of ST and ST++: trainings, and the pseudo-labels between them."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ..checkpoint import load_framework
from ..data.detection_cache import image_key
from ..data.loader import Records, load_records, unlabeled_records
from ..data.pseudo_label_store import PseudoLabelStore
from ..inference.image_scores import score_images
from ..inference.pseudo_labeling import label_images
from ..utils.errors import InputError
from .phases import Phase, Plan, phase_folder

logger = logging.getLogger(__name__)

_FEW, _STORE = 200, "pseudo_labels"


def make_plan(cfg: CfgNode) -> Plan:
    """The trainings of a run: of STPlusPlus without DATASETS.PSEUDO_LABELS two or three, of any other one.

    1. `STPlusPlusLabeler` on the labeled images, as many of them in a step as of both kinds in the others. It labels
       the unlabeled images, in ST++ only those whose predictions changed least since its checkpoints after a third and
       two thirds of its steps (`image_score`).
    2. ST++: STPlusPlus on the labeled images and these. It labels the others.
    3. STPlusPlus on all images.

    Each begins with MODEL.WEIGHTS, and has as many epochs, but the first one twice as many with fewer than 200 labeled
    images. Differences to the published code, in brackets: thirds are of steps (of epochs, rounded down); numbers of
    steps follow from that of the last training (are rounded down for each epoch); an epoch ends with the unlabeled
    images (with the labeled ones, repeated until they are at least as many: on VOC's lists up to 6 % later); views of
    an image that is labeled are smoothed when they are made smaller (are not); and no mask of an unlabeled image is
    read (is, for the log).

    Args:
        cfg: of the last training; its data is registered, and it counts no epochs any more.

    Raises:
        InputError: the images, or the steps, are too few, there are no evaluations to choose a model by, or the
            checkpoints should go to a bucket.
    """
    if cfg.FRAMEWORK.NAME != "STPlusPlus" or cfg.DATASETS.PSEUDO_LABELS or not cfg.DATASETS.UNLABELED:
        return Plan([], cfg)
    keys, selective = cfg.FRAMEWORK.ST_PLUS_PLUS, cfg.FRAMEWORK.ST_PLUS_PLUS.SELECTIVE
    if keys.LABELER == "best" and (not cfg.TEST.EVAL_PERIOD or cfg.TEST.EVALUATOR == "submission"):
        raise InputError(
            "FRAMEWORK.ST_PLUS_PLUS.LABELER: best, but no evaluation says which one is; set TEST.EVAL_PERIOD (and "
            "TEST.EVALUATOR confusion), or this to last"
        )
    if cfg.SOLVER.CHECKPOINT_BUCKET:
        raise InputError(
            "SOLVER.CHECKPOINT_BUCKET: has room for one training, and STPlusPlus has several, with labels between "
            "them; leave it empty"
        )
    images = _count(cfg, "UNLABELED")
    if selective and not int(images * keys.RELIABLE):
        raise InputError(
            f"FRAMEWORK.ST_PLUS_PLUS.RELIABLE: {keys.RELIABLE:g} of {images} unlabeled images is none; raise it, or "
            "set FRAMEWORK.ST_PLUS_PLUS.SELECTIVE False"
        )
    iters = keys.MAX_ITERS or _default_iters(cfg)
    if len(iters) != 1 + selective or min(iters) < 2:
        raise InputError(
            f"FRAMEWORK.ST_PLUS_PLUS.MAX_ITERS: {iters}, but {1 + selective} trainings come before the last one; give "
            "each a number of steps, 2 or more"
        )
    first = _first_config(cfg, iters[0])
    if not selective:
        return Plan([Phase(first, partial(_label_all, first, cfg))], _retraining(cfg, "", cfg.SOLVER.MAX_ITER, first))
    second = _retraining(cfg, "reliable", iters[1], first)
    phases = [
        Phase(first, partial(_label_reliable, first, cfg)),
        Phase(second, partial(_label_others, second, first, cfg)),
    ]
    return Plan(phases, _retraining(cfg, "", cfg.SOLVER.MAX_ITER, first, second))


def _default_iters(cfg: CfgNode) -> list[int]:
    """The steps of the trainings before the last one that make as many epochs as it has."""
    solver, keys = cfg.SOLVER, cfg.FRAMEWORK.ST_PLUS_PLUS
    epochs = solver.MAX_ITER * solver.UNLABELED_IMS_PER_BATCH / _count(cfg, "UNLABELED")
    labeled = _count(cfg, "TRAIN")
    passes = epochs * (2 if labeled < _FEW else 1)
    steps = [passes * labeled / (solver.IMS_PER_BATCH + solver.UNLABELED_IMS_PER_BATCH)]
    if keys.SELECTIVE:
        steps.append(keys.RELIABLE * solver.MAX_ITER)
    return [max(2, round(count)) for count in steps]


def _count(cfg: CfgNode, key: str) -> int:
    """The images of the lists that a key of DATASETS names."""
    return sum(len(load_records(name, f"DATASETS.{key}", labels=False)) for name in cfg.DATASETS[key])


def _first_config(cfg: CfgNode, steps: int) -> CfgNode:
    solver = cfg.SOLVER
    batch = solver.IMS_PER_BATCH + solver.UNLABELED_IMS_PER_BATCH
    thirds = sorted({max(1, steps // 3), 2 * steps // 3})
    return _changed(
        cfg,
        steps,
        *("FRAMEWORK.NAME", "STPlusPlusLabeler", "DATASETS.UNLABELED", ()),
        *("SOLVER.IMS_PER_BATCH", batch, "SOLVER.UNLABELED_IMS_PER_BATCH", 0, "SOLVER.REFERENCE_IMS_PER_BATCH", 0),
        *("SOLVER.CHECKPOINT_STEPS", thirds, "SOLVER.EARLY_STOPPING.PATIENCE", 0),
        *("OUTPUT_DIR", phase_folder(cfg, "supervised")),
    )


def _retraining(cfg: CfgNode, name: str, steps: int, *labelers: CfgNode) -> CfgNode:
    """The training on what earlier ones have labeled; the last one's name is empty."""
    output = phase_folder(cfg, name) if name else cfg.OUTPUT_DIR
    # Relative, so that the folder of the run can be moved.
    labels = tuple(os.path.relpath(_store(one).folder, output) for one in labelers)
    return _changed(cfg, steps, "OUTPUT_DIR", output, "DATASETS.PSEUDO_LABELS", labels)


def _changed(cfg: CfgNode, steps: int, *changes: Any) -> CfgNode:
    """A copy of the plan's config with other values, and as many evaluations for another number of steps."""
    own = cfg.clone()
    own.defrost()
    own.merge_from_list(["SOLVER.MAX_ITER", steps, *changes])
    if period := cfg.TEST.EVAL_PERIOD:
        own.TEST.EVAL_PERIOD = max(1, round(period * steps / cfg.SOLVER.MAX_ITER))
    own.freeze()
    return own


def _store(cfg: CfgNode) -> PseudoLabelStore:
    """Where the labels of a training's model are."""
    return PseudoLabelStore(Path(cfg.OUTPUT_DIR, _STORE), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


def _label_all(first: CfgNode, plan: CfgNode) -> None:
    _label(first, unlabeled_records(plan))


def _label_reliable(first: CfgNode, plan: CfgNode) -> None:
    folder, records = Path(first.OUTPUT_DIR), unlabeled_records(plan)
    names = [f"model_{step - 1:07d}.pth" for step in first.SOLVER.CHECKPOINT_STEPS]
    checkpoints = [folder / name for name in (*names, "model_final.pth")]
    scores = score_images(_for_whole_images(first), checkpoints, records, folder)
    ranked = sorted(records, key=lambda record: scores.get(image_key(record), -1.0), reverse=True)
    count = int(len(ranked) * plan.FRAMEWORK.ST_PLUS_PLUS.RELIABLE)
    logger.info("%d of %d unlabeled images are reliable", count, len(ranked))
    _label(first, ranked[:count])


def _label_others(second: CfgNode, first: CfgNode, plan: CfgNode) -> None:
    reliable = _store(first)
    _label(second, [record for record in unlabeled_records(plan) if record not in reliable])


def _label(cfg: CfgNode, records: Records) -> None:
    """Label images by the model that a training has left."""
    own, keys = _for_whole_images(cfg), cfg.FRAMEWORK.ST_PLUS_PLUS
    name = "model_best.pth" if keys.LABELER == "best" else "model_final.pth"
    own.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR, name))
    own.TEST.INFERENCE.SCALES, own.TEST.INFERENCE.FLIP = keys.SCALES, True
    label_images(own, load_framework(own), records, _store(cfg))


def _for_whole_images(cfg: CfgNode) -> CfgNode:
    """A copy of a config, not frozen, by which all of an image is segmented, even if its center alone is judged."""
    own = cfg.clone()
    own.defrost()
    if own.TEST.INFERENCE.MODE == "crop":
        own.TEST.INFERENCE.MODE = "whole"
    return own
