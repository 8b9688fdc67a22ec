"""A study's YAML.

```yaml
title: Fields                          # optional
base: configs/_base_/camvid.yaml       # the preset under all rows; from the current folder, or from the repository
overrides: {DATASETS.DESCRIPTION: fields.yaml, FRAMEWORK.NAME: MeanTeacher}   # optional; for all rows
lists: {labeled: "fields{draw}_labeled", unlabeled: "fields{draw}_unlabeled", dev: fields_dev, val: fields_val}
draws:                                 # {draw} in the lists becomes the suffix, by default nothing
  a: {seed: 0}
  b: {seed: 1, suffix: _b}
plain: host                            # the row to which the others are compared, draw by draw
judge: {images: 70, steps: [600]}      # optional: pseudo-labels of so many images, after these steps and after the last
detector: {base: configs/detector/camvid_lite0.yaml, overrides: {}}      # optional: whose boxes are {boxes}
questions: {"Boxes?": [boxes, rank]}   # optional: the first row is compared with the others
rows:                                  # keys over those of all rows; `plain` names another row to compare with
  host: {}
  rank: {WEIGHTING.ENABLED: True}
  boxes: {MODEL.DETECTOR.MODE: cached, MODEL.DETECTOR.CACHE: "{boxes}"}
  oracle_weights: {FRAMEWORK.NAME: OracleWeightsMeanTeacher}
```

`val` may be left out: settings are chosen on `dev`, and `val` is for reporting. Keys may also be nested, as in presets.
`_BASE_` names another study, from the folder of this one, whose keys stand where this one has none.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wpl_d2.config.layers import flatten
from wpl_d2.utils.errors import InputError, check_name, suggest
from wpl_d2.utils.files import read_yaml

from .oracle import PREFIX
from .study import BOXES, REPOSITORY, Detector, Draw, Judge, Lists, Row, Settings, Study

EXAMPLE = "projects/WeightStudy/studies/voc_animals_1_8.yaml"
_KEYS = ("title", "base", "overrides", "lists", "draws", "plain", "judge", "detector", "questions", "rows")
_SET_BY_STUDY = (
    *("DATASETS.TRAIN", "DATASETS.UNLABELED", "DATASETS.TEST", "SEED", "OUTPUT_DIR", "TEST.STUDENT"),
    *("TEST.EVAL_PERIOD", "TEST.PSEUDO_LABELS", "SOLVER.CHECKPOINTS_TO_KEEP"),
)
T = TypeVar("T")


def load_study(path: Path) -> Study:
    """Read and check a study's YAML; see the module's docstring.

    Raises:
        InputError: `file: what is wrong; how to mend it`.
    """
    file = _find(path, "STUDY")
    raw = _read(file)
    try:
        return _study(raw)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _read(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A study's keys, and those that it lacks of the one that _BASE_ names; `above` are those that stand on it."""
    raw = read_yaml(file, EXAMPLE)
    base = raw.pop("_BASE_", None)
    if base is None:
        return raw
    path = file.parent / _text(base, f"{file}: _BASE_")
    above = (*above, file.resolve())
    if not path.is_file() or path.resolve() in above:
        raise InputError(f"{file}: _BASE_: {base} is not another study; give one, from the folder of this one")
    return _read(path, above) | raw


def _study(raw: dict[str, Any]) -> Study:
    for key in raw:
        check_name("the study's key", key, _KEYS)
    common, plain = _settings(raw.pop("overrides", {}), "overrides"), raw.pop("plain", None)
    rows = {name: _row(name, value, common, plain) for name, value in _named(raw.pop("rows", None), "rows").items()}
    draws = {
        name: _build(Draw, value, f"draws: {name}", name=name)
        for name, value in _named(raw.pop("draws", None), "draws").items()
    }
    if len({(draw.seed, draw.suffix) for draw in draws.values()}) < len(draws):
        raise InputError("draws: two have the same seed and the same suffix; make them different")
    check_name("plain", plain, rows)
    for row in rows.values():
        check_name(f"rows: {row.name}: plain", row.plain, rows)
    study = _build(Study, raw, "", draws=draws, rows=rows)
    for question, names in study.questions.items():
        for name in names:
            check_name(f"questions: {question}", name, rows)
    asking = [row.name for row in rows.values() if row.asks_for_boxes]
    if asking and study.detector is None:
        raise InputError(f"rows: {asking[0]}: asks for {BOXES}, but there is no 'detector'; add one")
    return study


def _row(name: str, value: Any, common: Settings, plain: str) -> Row:
    given = {} if value is None else value
    if isinstance(given, dict):
        given = dict(given)
        plain = given.pop("plain", plain)
    own = _settings(given, f"rows: {name}")
    row = Row(name, common | own, plain, tuple(own))
    begins = name.startswith(PREFIX.lower())
    if row.oracle and not begins:
        raise InputError(f"rows: {name}: is an oracle; let its name say so, such as {PREFIX.lower()}_{name}")
    if begins and not row.oracle:
        raise InputError(f"rows: {name}: is not an oracle by its FRAMEWORK.NAME; give it another name")
    return row


def _named(value: Any, where: str) -> dict[str, Any]:
    """What has names that become folders."""
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: {value!r} does not name any; write 'name: ...' below it, see {EXAMPLE}")
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
            raise InputError(
                f"{where}: {name!r} does not do as a name; take letters, digits, '_' and '-', in quotes where YAML "
                "takes it for something else"
            )
    return value


def _build(kind: Callable[..., T], value: Any, where: str, **known: Any) -> T:
    """A dataclass out of a mapping from the names of its fields, those in `known` excepted."""
    begin = f"{where}: " if where else ""
    if not isinstance(value, dict):
        raise InputError(f"{begin}{value!r} does not consist of 'name: value'; see {EXAMPLE}")
    fields = {item.name: item for item in dataclasses.fields(kind) if item.name not in known}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise InputError(f"{begin}there is no {key!r}; {suggest(str(key), fields)}")
    for key, item in fields.items():
        if key not in value and item.default is item.default_factory is dataclasses.MISSING:
            raise InputError(f"{begin}{key!r} is missing; add it, see {EXAMPLE}")
    return kind(**known, **{key: _CONVERT[fields[key].type](given, f"{begin}{key}") for key, given in value.items()})


def _settings(value: Any, where: str) -> Settings:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {value!r} does not consist of 'KEY: value'; see {EXAMPLE}")
    settings = {key: json.dumps(given) if isinstance(given, list) else str(given) for key, given in flatten(value)}
    for key in settings:
        if key in _SET_BY_STUDY:
            raise InputError(f"{where}: {key} is set by the study, for each run; leave it out")
    return settings


def _find(value: Any, where: str) -> Path:
    """A file, from the current folder or else from the repository's root."""
    for path in (Path(str(value)).expanduser(), REPOSITORY / str(value)):
        if path.is_file():
            return path
    raise InputError(f"{where}: {value} is not a file; give the path of a YAML file")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {value!r} is not text; put it in quotes")
    return value


def _integer(value: Any, where: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{where}: {value!r} does not do; give a whole number, {least} or more")
    return value


def _steps(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {value!r} is not a list; write [600]")
    return tuple(sorted({_integer(step, where, least=1) for step in value}))


def _questions(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not all(isinstance(rows, list) and len(rows) > 1 for rows in value.values()):
        raise InputError(f"{where}: {value!r} does not do; give two rows or more for each, 'QUESTION: [ROW, ROW]'")
    return {str(question): tuple(map(str, rows)) for question, rows in value.items()}


def _judge(value: Any, where: str) -> Judge:
    judge = _build(Judge, value, where)
    _integer(judge.images, f"{where}: images", least=1)
    return judge


_CONVERT: dict[str, Callable[[Any, str], Any]] = {
    "str": _text,
    "int": _integer,
    "tuple[int, ...]": _steps,
    "Settings": _settings,
    "Path": _find,
    "Lists": lambda value, where: _build(Lists, value, where),
    "Judge | None": _judge,
    "Mapping[str, tuple[str, ...]]": _questions,
    "Detector | None": lambda value, where: _build(Detector, value, where),
}
"""By the type of a field, as it is written."""
