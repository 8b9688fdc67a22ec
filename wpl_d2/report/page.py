"""The report as one HTML file that needs nothing else, and as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from .evidence import FOLDER

MAX_BYTES = 5_000_000
"""The size that a report stays below."""
_PICTURE_BYTES = 3_000_000
"""What all pictures together may take, once encoded."""
_CHART_LIBRARY = "chart-4.6.1.umd.min.js"
_LARGEST_MATRIX = 30
"""Classes of a confusion matrix that is shown whole; of a larger one the worst confusions are."""


def render_page(report: dict[str, Any]) -> str:
    """The HTML of a report.

    Args:
        report: of `make_report`; the pictures that it names are read from the runs' folders.
    """
    html = _render(report, _PICTURE_BYTES)
    return html if len(html.encode()) < MAX_BYTES else _render(report, 0)


def _render(report: dict[str, Any], picture_bytes: int) -> str:
    charts = {f"all-{chart['id']}": chart for chart in (report["comparison"] or {}).get("charts", ())}
    for number, run in enumerate(report["runs"]):
        charts |= {f"r{number}-{chart['id']}": chart for chart in run["charts"]}
    return load_template("report.html.jinja").render(
        report=report,
        charts=charts,
        pictures=_read_pictures(report["runs"], picture_bytes),
        # Without the address of its source map, which browsers' tools would look for.
        library=_asset(_CHART_LIBRARY).partition("//# sourceMappingURL")[0],
        js=_asset("report.js"),
        largest_matrix=_LARGEST_MATRIX,
    )


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def load_template(name: str) -> jinja2.Template:
    """A page's template, with the filters and style that all pages share."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": format_number, "worst_confusions": worst_confusions, "extremes": extremes}
    environment.tests["match_start"] = str.startswith
    environment.globals["css"] = _asset("report.css")
    return environment.from_string(_asset(name))


def format_number(value: float | None, digits: int = 1) -> str:
    """A number for people, and a dash for what is not known."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def extremes(points: Sequence[Sequence[float]]) -> dict[str, float]:
    """The first, lowest, highest and last value of a curve."""
    values = [value for _, value in points]
    return {"first": values[0], "lowest": min(values), "highest": max(values), "last": values[-1]}


def worst_confusions(matrix: Sequence[Sequence[int]], most: int = 10) -> list[dict[str, Any]]:
    """The pairs of classes of which most pixels are mixed up, with the share of the true class's pixels in percent."""
    cells = [
        {"true": true, "predicted": predicted, "share": 100 * count / max(1, sum(row)), "pixels": count}
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    return sorted(cells, key=lambda cell: -cell["pixels"])[:most]


def _read_pictures(runs: Sequence[dict[str, Any]], most: int) -> list[list[dict[str, Any]]]:
    """The examples of each run with their pictures as data URLs: as many of each run as fit.

    The first examples are of all kinds, so that a few show the best, a median and the worst image.
    """
    share, shown = most // max(1, len(runs)), []
    for run in runs:
        used, examples = 0, []
        for example in run["examples"]:
            try:
                urls = {
                    title: data_url((Path(run["folder"]) / FOLDER / name).read_bytes())
                    for title, name in example["pictures"].items()
                }
            except OSError:  # the folder was moved without them
                continue
            used += sum(map(len, urls.values()))
            if used > share:
                break
            examples.append({**example, "urls": urls})
        shown.append(sorted(examples, key=lambda example: example["rank"]))
    return shown


def data_url(picture: bytes) -> str:
    """The address that stands for a WebP picture itself."""
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
