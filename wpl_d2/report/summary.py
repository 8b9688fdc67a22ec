"""The numbers of one run, as the report shows and as report.json holds them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.datasets.folder import default_colors
from ..engine import last_value
from ..engine.runs import Row
from ..evaluation.image_counts import class_figures, intersection_over_union, interval, mean_iou
from .run import BOX_AP, MIOU, Run

MAX_POINTS = 300
"""Of a curve; of longer ones evenly spread points are kept, the last one among them."""
_GROUPS = ("pixel", "confident", "reliable")
"""Of `PseudoLabelEvaluator`: the groups of pixels whose accuracy is shown."""

Curve = dict[str, Any]
"""{"name": ..., "points": [[step, value], ...]}."""


def summarize_run(run: Run) -> dict[str, Any]:
    """All that is known of a run, but for the words of `judge_run`. Figures are percent; None is what is not known."""
    classes = summarize_classes(run)
    return {
        "name": run.folder.absolute().name,
        "folder": str(run.folder),
        "finished": run.finished,
        "steps": run.steps,
        "max_steps": run.max_steps,
        "what": describe_training(run),
        "figure": summarize_figure(run),
        "classes": classes,
        "confusion": None if run.counts is None else run.counts.confusion.tolist(),
        "charts": [*training_charts(run), *pseudo_label_charts(run, _worst_first(classes))],
        "pseudo_label_accuracy": pseudo_label_accuracy(run),
        "boxes": summarize_boxes(run),
        "examples": run.evidence.get("examples", []),
        "left_out": last_value(run.rows, "left_out/images"),
        "warnings": run.warnings,
        "fitted": run.fitted,
        "commands": run.commands,
        "again": shlex.join(["wpl", "train", f"{run.folder}/config.yaml", "OUTPUT_DIR", f"{run.folder}_again"]),
        "config": run.config,
    }


def describe_training(run: Run) -> dict[str, Any]:
    """What was trained on what: from the config, and counts of the data if they were kept."""
    keys = run.settings
    weighted = keys.get("WEIGHTING.ENABLED") and not run.is_supervised
    weighting = " and ".join(_names(keys.get("WEIGHTING.KIND", ()))) if weighted else None
    backbone = keys.get("MODEL.TIMM.NAME")
    if keys.get("MODEL.BACKBONE.NAME") != "build_timm_backbone":
        backbone = f"ResNet-{keys.get('MODEL.RESNETS.DEPTH')}"
    return {
        "method": keys.get("FRAMEWORK.NAME"),
        "weighting": weighting,
        "rppi": bool(weighting and keys.get("RPPI.ENABLED")),
        "detector": keys.get("MODEL.DETECTOR.MODE"),
        "backbone": backbone,
        "labeled": {"lists": list(keys.get("DATASETS.TRAIN", ())), "images": None} | run.evidence.get("labeled", {}),
        "unlabeled": {"lists": list(keys.get("DATASETS.UNLABELED", ())), "images": None}
        | run.evidence.get("unlabeled", {}),
        "test": next(iter(keys.get("DATASETS.TEST", ())), None),
        "test_images": None if run.counts is None else len(run.counts.files),
        "batch": keys.get("SOLVER.IMS_PER_BATCH"),
        "unlabeled_batch": None if run.is_supervised else keys.get("SOLVER.UNLABELED_IMS_PER_BATCH"),
        "crop": list(keys.get("INPUT.CROP_SIZE", ())),
        "threshold": keys.get("FRAMEWORK.THRESHOLD"),
        "seed": run.seed,
    }


def _names(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value


def summarize_figure(run: Run) -> dict[str, Any]:
    """The figure that counts: its last value, its interval by the bootstrap over images, and its best evaluation."""
    measured = [(row["iteration"], row[run.metric]) for row in run.rows if run.metric in row]
    best = max(measured, key=lambda pair: pair[1], default=(None, None))
    result: dict[str, Any] = {
        "name": "mIoU" if run.metric == MIOU else "box AP",
        "value": run.figure,
        "step": measured[-1][0] if measured else None,
        "best": {"value": best[1], "step": best[0]},
        "low": None,
        "high": None,
        "images": None,
        "counts_are_of_it": None,
    }
    if run.counts is not None and run.metric == MIOU:
        value = float(mean_iou(run.counts.counts.sum(axis=0)))
        low, high = interval(mean_iou(run.counts.resample()))
        same = run.figure is not None and abs(value - run.figure) < 0.005
        # The counts say more, also where the folder holds a later evaluation than metrics.json.
        result |= {"value": value, "low": low, "high": high, "images": len(run.counts.files), "counts_are_of_it": same}
    return result


def summarize_classes(run: Run) -> list[dict[str, Any]]:
    """A row for each class: its figures and their support, by image counts or else by the last evaluation."""
    names = run.counts.classes if run.counts is not None else _class_names(run)
    colors = run.evidence.get("colors") or default_colors(len(names))
    labeled = run.evidence.get("labeled", {})
    pixels = np.array(labeled.get("pixels", np.zeros(len(names))))
    rows = []
    for index, name in enumerate(names):
        row = {"name": name, "color": list(colors[index]), **_last_figures(run, name)}
        if len(pixels) == len(names) and pixels.sum():
            row |= {"labeled_share": 100 * float(pixels[index] / pixels.sum())}
            row |= {"labeled_images": labeled["images_with"][index], "labeled_counted": labeled["counted"]}
        rows.append(row)
    if run.counts is not None:
        _add_counts(run, rows)
    return rows


def _class_names(run: Run) -> list[str]:
    known = run.evidence.get("classes")
    prefix = f"{MIOU.partition('/')[0]}/IoU-"
    return known or [key.removeprefix(prefix) for key in _last_row(run, MIOU) if key.startswith(prefix)]


def _last_row(run: Run, key: str) -> Row:
    return next((row for row in reversed(run.rows) if key in row), {})


def _last_figures(run: Run, name: str) -> dict[str, Any]:
    """What metrics.json says of a class."""
    figures = {
        "IoU": last_value(run.rows, f"sem_seg/IoU-{name}"),
        "recall": last_value(run.rows, f"sem_seg/ACC-{name}"),
    }
    for key in ("share", "selected", "weight"):
        figures[f"pseudo_{key}"] = last_value(run.rows, f"pseudo/{key}-{name}")
    return figures


def _add_counts(run: Run, rows: list[dict[str, Any]]) -> None:
    assert run.counts is not None
    counts = run.counts.counts
    total = counts.sum(axis=0)
    figures, drawn = class_figures(total), intersection_over_union(run.counts.resample())
    for index, row in enumerate(rows):
        row |= {name: float(values[index]) for name, values in figures.items()}
        row |= {"pixels": int(total[1, index]), "images": int((counts[:, 1, index] > 0).sum())}
        row |= {"share": 100 * float(total[1, index] / max(1, total[1].sum()))}
        if np.isfinite(drawn[:, index]).any():
            row["low"], row["high"] = interval(drawn[:, index])
        row |= _confusions(run.counts.confusion, index, run.counts.classes)


def _confusions(confusion: NDArray[np.int64], index: int, classes: Sequence[str]) -> dict[str, Any]:
    """The class that takes most of this one's pixels, and the one of which most pixels are wrongly called this."""
    result: dict[str, Any] = {}
    for key, line in (("taken_for", confusion[index]), ("mistaken", confusion[:, index])):
        others = np.where(np.arange(len(line)) == index, 0, line)
        other = int(others.argmax())
        if others[other]:
            result[key] = {"class": classes[other], "share": 100 * float(others[other] / line.sum())}
    return result


def summarize_boxes(run: Run) -> dict[str, dict[str, float]]:
    """Average precision over all boxes ("all": AP, AP50, ...) and of each class ("classes"); empty without boxes."""
    last = {
        key.removeprefix("bbox/"): value for key, value in _last_row(run, BOX_AP).items() if key.startswith("bbox/")
    }
    classes = {key.removeprefix("AP-"): last.pop(key) for key in list(last) if key.startswith("AP-")}
    return {"all": last, "classes": classes} if last else {}


def training_charts(run: Run) -> list[dict[str, Any]]:
    """Curves over the steps: losses, mIoU, learning rate, shares and mean weight of pseudo-labels."""
    keys = list(dict.fromkeys(key for row in run.rows for key in row))
    losses = [key for key in keys if key.startswith("loss_")]
    losses = ["total_loss", *losses] if len(losses) > 1 else losses
    figures = [key for key in keys if key == run.metric or key.endswith(f"/{run.metric}")]
    shares = {"pseudo/selected": "confident", "pseudo/reliable": "reliable", "pseudo/weighted": "weight not neutral"}
    means = {"pseudo/weight": "weight", "pseudo/confidence": "confidence"}
    metric = run.metric.partition("/")[2]
    charts = [
        _chart("losses", "Losses", "", run.rows, {key: key for key in losses}),
        _chart("figure", f"{metric} on the test sets", "%", run.rows, _figure_names(run, figures)),
        _chart("rate", "Learning rate", "", run.rows, {"lr": "learning rate"}),
        _chart("shares", "Pseudo-labels: share of pixels", "%", run.rows, shares, scale=100),
        _chart("weight", "Pseudo-labels: mean weight and confidence", "", run.rows, means),
    ]
    return [chart for chart in charts if chart["series"]]


def _figure_names(run: Run, keys: Iterable[str]) -> dict[str, str]:
    first = next(iter(run.settings.get("DATASETS.TEST", ())), "test set")
    return {key: first if key == run.metric else key.removesuffix(f"/{run.metric}").replace("/", ", ") for key in keys}


def pseudo_label_charts(run: Run, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Curves of each class: share of the pseudo-labels, how many are confident, mean weight, and measured accuracy."""
    titles = {
        "share": ("Share of the pseudo-labels, by class", "%", 100),
        "selected": ("Confident part of a class's pseudo-labels", "%", 100),
        "weight": ("Mean weight of a class's pseudo-labels", "", 1),
    }
    charts = [
        _chart(f"class_{key}", title, unit, run.rows, {f"pseudo/{key}-{name}": name for name in classes}, scale)
        for key, (title, unit, scale) in titles.items()
    ]
    for data in _judged_sets(run):
        keys = {f"pseudo_labels/{data}/accuracy-confident-{name}": name for name in classes}
        title = f"Accuracy of the confident pseudo-labels on {data}"
        charts.append(_chart(f"accuracy_{data}", title, "%", run.rows, keys))
    return [chart for chart in charts if chart["series"]]


def _worst_first(classes: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the classes by rising IoU: a chart shows the first ones at once."""
    return [row["name"] for row in sorted(classes, key=lambda row: _sort_key(row["IoU"]))]


def _sort_key(value: float | None) -> float:
    return value if value is not None and np.isfinite(value) else np.inf


def _judged_sets(run: Run) -> list[str]:
    return list(run.settings.get("TEST.PSEUDO_LABELS", ()))


def pseudo_label_accuracy(run: Run) -> dict[str, Any]:
    """By data set of TEST.PSEUDO_LABELS: accuracy and coverage of groups of pseudo-labels at the last evaluation."""
    found = {}
    for data in _judged_sets(run):
        prefix = f"pseudo_labels/{data}/"
        results = {
            group: {key: last_value(run.rows, f"{prefix}{key}-{group}") for key in ("accuracy", "coverage")}
            for group in _GROUPS
        }
        if any(value is not None for group in results.values() for value in group.values()):
            found[data] = results
    return found


def _chart(
    id_: str, title: str, unit: str, rows: Sequence[Row], keys: dict[str, str], scale: float = 1.0
) -> dict[str, Any]:
    """A chart of those of the keys that were measured."""
    series = [{"name": name, "points": curve(rows, key, scale)} for key, name in keys.items()]
    return {"id": id_, "title": title, "unit": unit, "series": [line for line in series if line["points"]]}


def curve(rows: Sequence[Row], key: str, scale: float = 1.0) -> list[list[float]]:
    """Steps and values of a metric, at most `MAX_POINTS`; without those that are not finite."""
    points = [[row["iteration"], scale * row[key]] for row in rows if key in row and np.isfinite(row[key])]
    if len(points) > MAX_POINTS:
        points = [points[index] for index in np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]
    return [[int(step), float(f"{value:.5g}")] for step, value in points]
