"""What each framework adds to a step beside the forward passes of its models, and what weights add to that."""

from __future__ import annotations

import gc
from typing import Any

from detectron2.config import CfgNode as CN
from tabulate import tabulate

from ..config import load_cfg
from ..config.config import leaf_keys
from ..config.layers import value_of
from ..config.presets import preset_names
from ..frameworks.base import FRAMEWORK_REGISTRY
from ..utils.errors import InputError
from .step import Step, first_batch

_METHOD = (
    *("FRAMEWORK.", "INPUT.STRONG.", "INPUT.PASTE."),
    *("MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", "MODEL.METHOD_HEAD.", "WEIGHTING.NORM"),
)
"""What the keys of a method begin with."""
_AT_FIRST = [
    *("FRAMEWORK.BURN_IN", 0, "FRAMEWORK.BURN_IN_EPOCHS", 0),
    *("FRAMEWORK.EMA_COPY_STEPS", 0, "FRAMEWORK.EMA_COPY_EPOCHS", 0),
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


def compare_frameworks(cfg: CN, steps: int) -> dict[str, Any]:
    """A step of each framework, plain and weighted in turns, by its published settings on one network and data set.

    Args:
        cfg: complete, with its data sets registered; the network, the data, the batch and the weights are its own, the
            method is that of `published_methods`.
        steps: measured steps of each kind.

    Returns:
        of each NAME: `NAME_step_s`, the plain step; `NAME_own_share`, what the framework does of its own, as a share of
        it (see `Step`); `NAME_weighting_s`; and `NAME_weighting_share` of the plain step. `NAME_error` in place of
        these where a framework cannot have that network.
    """
    found: dict[str, Any] = {}
    for name, method in published_methods().items():
        own = cfg.clone()
        keys = [key for key in leaf_keys(method) if key.startswith(_METHOD)]
        own.merge_from_list([word for key in keys for word in (key, value_of(method, key))] + _AT_FIRST)
        figures: dict[str, Any]
        try:
            figures = _compare(own, steps)
        except InputError as error:
            figures = {"error": str(error)}
        found |= {f"{name}_{figure}": value for figure, value in figures.items()}
        gc.collect()  # a framework whose methods are timed refers to itself
    return found


def render(found: dict[str, Any]) -> str:
    """The figures of `compare_frameworks` as a table in Markdown, and the frameworks that cannot be measured."""
    names = [key.removesuffix("_step_s") for key in found if key.endswith("_step_s")]
    rows = [
        (
            name,
            f"{1000 * found[f'{name}_step_s']:.0f}",
            f"{100 * found[f'{name}_own_share']:.1f}",
            f"{1000 * found[f'{name}_weighting_s']:.1f}",
            f"{100 * found[f'{name}_weighting_share']:.2f}",
        )
        for name in names
    ]
    head = ["", "step, ms", "own part, %", "weights, ms", "weights, %"]
    errors = [f"\n{key.removesuffix('_error')}: {text}" for key, text in found.items() if key.endswith("_error")]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True) + "".join(errors)


def _compare(cfg: CN, steps: int) -> dict[str, float]:
    plain_cfg, weighted_cfg = cfg.clone(), cfg.clone()
    plain_cfg.WEIGHTING.ENABLED = plain_cfg.RPPI.ENABLED = False
    weighted_cfg.WEIGHTING.ENABLED = True
    batch = first_batch(cfg)
    kinds = plain, weighted = Step(plain_cfg, batch), Step(weighted_cfg, batch)
    for number in range(steps + 2):
        for step in kinds:
            step()
            if number < 2:
                step.times.clear()  # warm-up
    whole, weights = plain.median("step"), weighted.median("weighting")
    return {
        "step_s": whole,
        "own_share": plain.median("own") / whole,
        "weighting_s": weights,
        "weighting_share": weights / whole,
    }
