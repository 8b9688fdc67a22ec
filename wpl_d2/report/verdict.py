"""Whether a run is good or not, and why its classes fail, in plain words."""

from __future__ import annotations

from typing import Any

GOOD, FAILS = 75.0, 50.0
"""Percent: a run is good from this mIoU on if no class fails; a class fails below this IoU."""
RULE = (
    f"A class fails below an IoU of {FAILS:g} %. A run is good from {GOOD:g} % mIoU on if no class fails, fair from "
    f"{FAILS:g} % on, else poor. These limits are conventions; your task may need more, or less."
)
_FEW_SHARE, _FEW_IMAGES = 1.0, 5
_CONFUSED = 15.0
_RARELY = 5.0
_GAIN = 1.0
"""Percent: a class with a smaller share of the labeled pixels, or in fewer labeled images, has few; a larger share of a
class's pixels that one other class takes is a confusion; pseudo-labels of which less is confident are hardly learned
from; a difference in mIoU is worth a word."""


def judge_run(summary: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a run.

    Args:
        summary: of `summarize_run`.

    Returns:
        "level" (good, fair, poor or unknown), "headline", "notes" (sentences), "failing" (classes with reasons, the
        worst first) and "rule".
    """
    failing = [
        {"class": row["name"], "IoU": row["IoU"], "reasons": explain_class(row, summary["what"])}
        for row in summary["classes"]
        if row["IoU"] is not None and row["IoU"] < FAILS
    ]
    failing.sort(key=lambda row: row["IoU"])
    level, headline = _level(summary, failing)
    return {"level": level, "headline": headline, "notes": _notes(summary), "failing": failing, "rule": RULE}


def _level(summary: dict[str, Any], failing: list[dict[str, Any]]) -> tuple[str, str]:
    figure = summary["figure"]
    if figure["value"] is None:
        return "unknown", "Not evaluated yet"
    if figure["name"] != "mIoU":
        return "unknown", f"A detector alone: {figure['name']} {figure['value']:.1f} %"
    judged = [row for row in summary["classes"] if row["IoU"] is not None]
    if not failing:
        every = f"every class reaches an IoU of {FAILS:g} %"
        return ("good", f"Good: {every}") if figure["value"] >= GOOD else ("fair", f"Fair: {every}")
    words = f"{len(failing)} of {len(judged)} classes fail" if len(failing) > 1 else f"{failing[0]['class']} fails"
    return ("fair", f"Fair: {words}") if figure["value"] >= FAILS else ("poor", f"Poor: {words}")


def _notes(summary: dict[str, Any]) -> list[str]:
    figure, notes = summary["figure"], []
    if not summary["finished"]:
        total = f" of {summary['max_steps']}" if summary["max_steps"] else ""
        notes.append(f"The training is not complete: it has come to step {summary['steps']}{total}.")
    if figure["counts_are_of_it"] is False:
        notes.append("The figures by class and image are of another evaluation than the last one of metrics.json.")
    if figure["value"] is not None and figure["images"] is None and figure["name"] == "mIoU":
        notes.append(
            "The run kept no counts by image, so that there is no interval, confusion matrix or picture: "
            "add them with --evaluate."
        )
    best = figure["best"]
    if figure["step"] != best["step"] and best["value"] - figure["value"] >= _GAIN:
        notes.append(
            f"The evaluation at step {best['step']} was better ({best['value']:.1f} %): model_best.pth is that model."
        )
    elif (gain := _late_gain(summary)) and gain[1] >= _GAIN:
        notes.append(f"{figure['name']} rose by {gain[1]:.1f} since step {gain[0]}: more steps may help.")
    if summary["left_out"]:
        notes.append(f"{summary['left_out']:g} images could not be judged and were left out; see the warnings.")
    return notes


def _late_gain(summary: dict[str, Any]) -> tuple[float, float] | None:
    """By how much the figure rose since its last evaluation in the first three quarters, if there was one."""
    points: list[list[float]] = next(
        (chart["series"][0]["points"] for chart in summary["charts"] if chart["id"] == "figure"), []
    )
    earlier = [point for point in points if point[0] <= 0.75 * points[-1][0]]
    return (earlier[-1][0], points[-1][1] - earlier[-1][1]) if earlier else None


def explain_class(row: dict[str, Any], what: dict[str, Any]) -> list[str]:
    """The reasons that the numbers give for a class that fails: what there is little of, and what it is taken for.

    Args:
        row: of `summarize_classes`.
        what: of `describe_training`.
    """
    reasons = []
    if "labeled_share" in row and (row["labeled_share"] < _FEW_SHARE or row["labeled_images"] < _FEW_IMAGES):
        reasons.append(
            f"few pixels: {row['labeled_share']:.2g} % of the labeled ones, in {row['labeled_images']} of "
            f"{row['labeled_counted']} labeled images"
        )
    if row["recall"] is not None and row["recall"] < 1:
        reasons.append("hardly ever predicted")
    taken, mistaken = row.get("taken_for"), row.get("mistaken")
    if taken and taken["share"] >= _CONFUSED:
        reasons.append(f"confused: {taken['share']:.0f} % of its pixels are taken for {taken['class']}")
    if mistaken and mistaken["share"] >= _CONFUSED:
        reasons.append(f"{mistaken['share']:.0f} % of the pixels called {row['name']} are {mistaken['class']}")
    selected, share, threshold = row["pseudo_selected"], row["pseudo_share"], what["threshold"]
    if share == 0:
        reasons.append("no pseudo-label names it")
    elif selected is not None and 100 * selected < _RARELY:
        reasons.append(
            f"never confident: {100 * selected:.1f} % of its pseudo-labels reach FRAMEWORK.THRESHOLD {threshold:g}"
        )
    return reasons or ["no single cause: no class takes many of its pixels, and it is not rare"]
