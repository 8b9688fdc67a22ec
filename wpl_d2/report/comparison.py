"""Several runs side by side: means, spreads, and differences over seeds and over images."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..engine import Spread, paired_differences
from ..evaluation.image_counts import interval, mean_iou
from .run import MIOU, Run
from .summary import curve

Group = list[Run]
"""Runs of equal `Run.recipe`."""


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The groups of runs, each with its mean, and with its difference to the baseline.

    The baseline is the first group that learned from labels alone, or else the first.
    """
    groups = group_runs(runs)
    base = next((name for name, group in groups.items() if group[0].is_supervised), next(iter(groups)))
    draws = len({run.labeled for run in runs}) > 1
    rows = [_summarize_group(name, group, base, groups[base], draws) for name, group in groups.items()]
    return {
        "metric": "mIoU" if runs[0].metric == MIOU else "box AP",
        "baseline": base,
        "headline": _headline(rows, base),
        "groups": rows,
        "charts": _charts(groups),
    }


def group_runs(runs: Sequence[Run]) -> dict[str, Group]:
    """Runs of equal config but for the seed and which images are labeled, under a name each."""
    by_recipe: dict[str, Group] = defaultdict(list)
    for run in runs:
        by_recipe[run.recipe if run.settings else str(run.folder)].append(run)
    groups = list(by_recipe.values())
    names = [_common_name(group) for group in groups]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    named: dict[str, Group] = {}
    for name, group in zip(names, groups, strict=True):
        title = f"{group[0].folder.absolute().parent.name}/{name}" if name in repeated else name
        named[title if title not in named else str(group[0].folder)] = group
    return named


def _common_name(group: Group) -> str:
    """The runs' common name, or that of the folder that they are in."""
    names = list(dict.fromkeys(run.name for run in group))
    parents = {run.folder.absolute().parent.name for run in group}
    return names[0] if len(names) == 1 else parents.pop() if len(parents) == 1 else ", ".join(names)


def _by_seed(group: Group, draws: bool) -> dict[str, Run]:
    """The evaluated runs by seed and, where labeled images differ, list; one that was trained again gets a number."""
    found: dict[str, Run] = {}
    repeats: Counter[str] = Counter()
    for run in group:
        if run.figure is not None:
            seed = f"{run.seed}, {run.labeled}" if draws else str(run.seed)
            repeats[seed] += 1
            found[f"{seed} ({repeats[seed]})" if repeats[seed] > 1 else seed] = run
    return found


def _summarize_group(name: str, group: Group, base_name: str, base: Group, draws: bool) -> dict[str, Any]:
    ours, theirs = _by_seed(group, draws), _by_seed(base, draws)
    values = {seed: float(run.figure or 0.0) for seed, run in ours.items()}
    row: dict[str, Any] = {"name": name, "runs": len(group), "values": values, **_spread(values.values())}
    row["classes"] = _class_means(group)
    if name == base_name:
        return row | {"difference": None, "words": "what the others are compared with"}
    pairs = paired_differences(values, {seed: float(run.figure or 0.0) for seed, run in theirs.items()})
    difference = {"by_seed": pairs, **_spread(pairs.values()), **_t_interval(list(pairs.values()))}
    if difference["low"] is None:
        difference |= _image_interval([(ours[seed], theirs[seed]) for seed in pairs])
    return row | {"difference": difference, "words": _words(difference, base_name)}


def _spread(values: Any) -> dict[str, Any]:
    spread = Spread.of(values)
    return {
        "count": spread.count,
        "mean": None if math.isnan(spread.mean) else spread.mean,
        "deviation": None if math.isnan(spread.deviation) else spread.deviation,
    }


def _t_interval(values: Sequence[float]) -> dict[str, Any]:
    """The 95 % interval of a mean over seeds by Student's t; none of fewer than two."""
    if len(values) < 2:
        return {"low": None, "high": None, "over": None}
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"low": float(np.mean(values)) - half, "high": float(np.mean(values)) + half, "over": "seeds"}


def _image_interval(pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """The 95 % interval of the one pair's difference by the bootstrap over images, if both were judged on the same."""
    for ours, theirs in pairs:
        if ours.counts is not None and theirs.counts is not None and ours.counts.files == theirs.counts.files:
            drawn = mean_iou(ours.counts.resample()) - mean_iou(theirs.counts.resample())
            return dict(zip(("low", "high"), interval(drawn), strict=True)) | {"over": "images"}
    return {}


def _words(difference: dict[str, Any], base: str) -> str:
    mean, low, high, over = (difference[key] for key in ("mean", "low", "high", "over"))
    if mean is None:
        return f"no seed in common with {base}"
    if low is None:
        return f"{mean:+.1f} against {base}, by one seed: too little to say more"
    chance = {"seeds": "the seeds", "images": "the images alone (one seed: another may differ by more)"}[over]
    if low > 0:
        return f"better than {base}, by more than chance of {chance} explains"
    if high < 0:
        return f"worse than {base}, by more than chance of {chance} explains"
    return f"no difference to {base} can be told from chance of {chance}"


def _headline(rows: Sequence[dict[str, Any]], base: str) -> str:
    others = [row for row in rows if row["difference"] is not None and row["mean"] is not None]
    if not others:
        return f"{base}: nothing to compare it with"
    best = max(others, key=lambda row: row["mean"])
    return f"{best['name']}: {best['words']}"


def _class_means(group: Group) -> dict[str, float | None]:
    """Mean IoU of each class over the evaluated runs."""
    prefix = "sem_seg/IoU-"
    last = [next((row for row in reversed(run.rows) if MIOU in row), {}) for run in group]
    names = dict.fromkeys(key.removeprefix(prefix) for row in last for key in row if key.startswith(prefix))
    return {name: _spread([row[prefix + name] for row in last if prefix + name in row])["mean"] for name in names}


def _charts(groups: dict[str, Group]) -> list[dict[str, Any]]:
    """The figure and the total loss of all runs."""
    titles = {"figure": ("mIoU of all runs", "%"), "loss": ("Total loss of all runs", "")}
    charts = []
    for id_, (title, unit) in titles.items():
        series = [
            {"name": f"{name}, seed {run.seed}" if len(group) > 1 else name, "group": number, "points": points}
            for number, (name, group) in enumerate(groups.items())
            for run in group
            if (points := curve(run.rows, run.metric if id_ == "figure" else "total_loss"))
        ]
        if series:
            charts.append({"id": f"all_{id_}", "title": title, "unit": unit, "series": series})
    return charts
