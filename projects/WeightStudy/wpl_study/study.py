"""What a study is: rows, draws, and the lists they are trained and measured on; `reading` makes it of a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .oracle import PREFIX

REPOSITORY = Path(__file__).resolve().parents[3]
DRAW = "{draw}"
"""In the name of a list: the draw's suffix."""
BOXES = "{boxes}"
"""In the value of a key: the file of boxes of the draw's detector."""

Settings = dict[str, str]
"""Values by config key, as on the command line."""


@dataclass(frozen=True)
class Draw:
    """A choice of labeled images, with the seed that goes with it.

    Attributes:
        name: also of the folder of its runs.
        seed: of the trainings.
        suffix: what {draw} in the names of the lists stands for.
    """

    name: str
    seed: int
    suffix: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: also of its folder.
        settings: over the base preset, those of all rows included.
        plain: the row to compare it with.
        own: which settings are not those of all rows.
    """

    name: str
    settings: Settings
    plain: str
    own: tuple[str, ...] = ()

    @property
    def oracle(self) -> bool:
        """Whether it is told the truth about unlabeled images."""
        return self.settings.get("FRAMEWORK.NAME", "").startswith(PREFIX)

    @property
    def asks_for_boxes(self) -> bool:
        """Whether it needs the draw's detector."""
        return any(BOXES in value for value in self.settings.values())


@dataclass(frozen=True)
class Judge:
    """What of the pseudo-labels is measured.

    Attributes:
        images: how many unlabeled ones, a fixed random part.
        steps: after which, beside the last.
    """

    images: int
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Detector:
    """The detector behind {boxes}, one for each draw, trained on its labeled images.

    Attributes:
        base: its preset.
        overrides: over it.
    """

    base: Path
    overrides: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Lists:
    """Names of registered lists; the first two may have {draw}, and `val` may be empty."""

    labeled: str
    unlabeled: str
    dev: str
    val: str = ""


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        base: the preset under all rows.
        lists: what is trained and measured on.
        draws: by name.
        rows: by name.
        title: of the report.
        judge: None where pseudo-labels are not measured.
        detector: None where no row asks for boxes.
        questions: rows to be compared with each other, the first with all others, by the question that this answers.
    """

    base: Path
    lists: Lists
    draws: Mapping[str, Draw]
    rows: Mapping[str, Row]
    title: str = "What weights are worth"
    judge: Judge | None = None
    detector: Detector | None = None
    questions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
