"""How figures look, and the three files that each becomes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wpl_d2.utils.files import clear_write_errors, replace_file, write_text

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's, which color-blind people tell apart."""
STYLES = ("-", "--", "-.", ":")
COLUMN = 3.3
"""Width in inches of one of two columns of a page."""

_LOOK = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "wpl",  # and files stay the same
}


@dataclass
class Drawn:
    """A figure and its numbers.

    Attributes:
        figure: for print.
        header: of the columns of `rows`.
        rows: what it shows, a row each.
    """

    figure: Figure
    header: Sequence[str]
    rows: list[Sequence[Any]]

    def save(self, begin: Path) -> list[Path]:
        """Write BEGIN.png (300 dots an inch), BEGIN.svg and BEGIN.csv.

        Raises:
            UnwritableError: the disk refuses them.
        """
        with clear_write_errors(begin.parent):
            begin.parent.mkdir(parents=True, exist_ok=True)
        files = [begin.with_name(f"{begin.name}.{kind}") for kind in ("png", "svg", "csv")]
        with mpl.rc_context(_LOOK):
            for file in files[:2]:
                options = {"format": file.suffix[1:], "dpi": 300}
                options |= {"metadata": {"Date": None}} if file.suffix == ".svg" else {}
                replace_file(file, lambda unfinished, options=options: self.figure.savefig(unfinished, **options))
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        write_text(files[2], text.getvalue())
        return files


@contextmanager
def canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (COLUMN, 2.4)) -> Iterator[tuple[Figure, Any]]:
    """A figure and its (rows, columns) axes, with the style that is used inside."""
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)


def draw_lines(axes: Axes, lines: Iterable[tuple[str, Sequence[float], Sequence[float]]]) -> None:
    """Draw lines of (label, x, y) that differ by color, dash and marker, with a legend."""
    for number, (label, x, y) in enumerate(lines):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": STYLES[number // len(COLORS) % len(STYLES)]}
        axes.plot(x, y, marker="osD^v"[number % 5], label=label, **look)
    axes.legend()


def show_picture(axes: Axes, picture: Any, title: str = "") -> None:
    """Show a (3, H, W) uint8 picture without axes."""
    axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()
