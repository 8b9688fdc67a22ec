"""What each framework adds to a step beside the forward passes of its models, and what weights add to that."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.config import CfgNode as CN

from ..config import load_cfg
from ..config.config import leaf_keys
from ..config.layers import value_of
from ..config.presets import preset_names
from ..frameworks.base import FRAMEWORK_REGISTRY, Framework
from ..utils.errors import InputError
from .step import Step, first_batch

Figures = dict[str, Any]

_METHOD = (
    *("FRAMEWORK.", "INPUT.STRONG.", "INPUT.PASTE."),
    *("MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", "MODEL.METHOD_HEAD.", "WEIGHTING.NORM"),
)
"""What the keys of a method begin with."""
_NO_NETWORK = (
    *("MODEL.COMPILE", "MODEL.DETECTOR.", "MODEL.DEVICE", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.VLG."),
    *("MODEL.WEIGHTS", *_METHOD),
)
"""What the keys below MODEL begin with that are not of a network's architecture."""
_AT_FIRST = [
    *("FRAMEWORK.BURN_IN", 0, "FRAMEWORK.BURN_IN_EPOCHS", 0),
    *("FRAMEWORK.EMA_COPY_STEPS", 0, "FRAMEWORK.EMA_COPY_EPOCHS", 0),
    *("FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS", 0, "FRAMEWORK.ALLSPARK.MEMORY_AFTER_EPOCHS", 0),
]
"""Without the steps in which a framework does less than later."""


def published_methods() -> dict[str, CN]:
    """The config of the first plain preset for PASCAL VOC of each semi-supervised framework, by FRAMEWORK.NAME."""
    found: dict[str, CN] = {}
    for preset in preset_names():
        if preset.startswith("voc/"):
            cfg = load_cfg(preset)
            name = cfg.FRAMEWORK.NAME
            if FRAMEWORK_REGISTRY.get(name).semi_supervised and not cfg.WEIGHTING.ENABLED:
                found.setdefault(name, cfg)
    return found


HEAD = "| | step, ms | own part, % | weights, ms | weights, % |\n|---|---|---|---|---|"
"""Of a table of `row`s, in Markdown."""


def compare_frameworks(cfg: CN, steps: int) -> Iterator[tuple[str, Figures]]:
    """A step of each framework, plain and weighted in turns, by its published settings on one network and data set.

    Args:
        cfg: complete, with its data sets registered; the network, the data, the batch and the weights are its own, the
            method is that of `published_methods`, and so is the network of a method that cannot have another.
        steps: measured steps of each kind.

    Yields:
        the framework's name, and `step_s`, its plain step; `own_share`, what the framework does of its own, as a share
        of it (see `Step`); `weighting_s`; and `weighting_share` of the plain step. `network` is "own" where it is the
        preset's. `error` in place of these where a framework can have neither network.
    """
    for name, method in published_methods().items():
        own = cfg.clone()
        own.WEIGHTING.ENABLED = True
        _take(own, method, [key for key in leaf_keys(method) if key.startswith(_METHOD)])
        own.merge_from_list(_AT_FIRST)
        try:
            yield name, {"network": "config's"} | _compare(own, steps)
        except InputError:
            yield name, _compare_on_own_network(own, method, steps)
        gc.collect()  # a framework whose methods are timed refers to itself


def _compare_on_own_network(cfg: CN, method: CN, steps: int) -> Figures:
    keys = (key for key in leaf_keys(method) if key.startswith("MODEL.") and not key.startswith(_NO_NETWORK))
    _take(cfg, method, keys)
    try:
        return {"network": "own"} | _compare(cfg, steps)
    except InputError as error:
        return {"error": str(error)}


def _take(cfg: CN, other: CN, keys: Iterable[str]) -> None:
    cfg.merge_from_list([word for key in keys for word in (key, value_of(other, key))])


def row(name: str, figures: Figures) -> str:
    """What `compare_frameworks` yields, as a row of a table in Markdown."""
    if "error" in figures:
        return f"| {name} | {figures['error']} | | | |"
    name += " (on its own network)" if figures["network"] == "own" else ""
    step, weights = 1000 * figures["step_s"], 1000 * figures["weighting_s"]
    own, share = 100 * figures["own_share"], 100 * figures["weighting_share"]
    return f"| {name} | {step:.0f} | {own:.1f} | {weights:.1f} | {share:.2f} |"


def _compare(cfg: CN, steps: int) -> Figures:
    step = Step(cfg, first_batch(cfg))
    learners = [module for module in step.framework.modules() if isinstance(module, Framework)]
    weighers = [learner.weigher for learner in learners]
    measured: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for number in range(steps + 1):
        for weighted, times in measured.items():
            for learner, weigher in zip(learners, weighers, strict=True):
                learner.weigher = weigher if weighted else None
            step()
            if number:  # the first is a warm-up
                times.append(step.times[-1])
    plain, own = (statistics.median(times[part] for times in measured[False]) for part in ("step", "own"))
    weights = statistics.median(times["weighting"] for times in measured[True])
    return {"step_s": plain, "own_share": own / plain, "weighting_s": weights, "weighting_share": weights / plain}
