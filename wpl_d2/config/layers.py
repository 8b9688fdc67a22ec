"""The layers of a config: YAML files, each of which overrides its `_BASE_`, and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode as CN

from ..utils.errors import InputError, suggest
from ..utils.files import read_yaml
from .presets import OWN_DATA, find_config, preset_names

COMMAND_LINE = "overrides"
FITTED = "settings that fit the data"
"""The source of the layer that `load_layers` fills in, of a data set that no preset is made for."""
IN_EPOCHS = {
    "SOLVER.EPOCHS": "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_EPOCHS": "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_EPOCHS": "TEST.EVAL_PERIOD",
    "FRAMEWORK.BURN_IN_EPOCHS": "FRAMEWORK.BURN_IN",
    "FRAMEWORK.EMA_COPY_EPOCHS": "FRAMEWORK.EMA_COPY_STEPS",
    "FRAMEWORK.ALLSPARK.MEMORY_AFTER_EPOCHS": "FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS",
    "FRAMEWORK.PREVMATCH.PUSH_EPOCHS": "FRAMEWORK.PREVMATCH.PUSH_STEPS",
    "FRAMEWORK.PSMT.TURN_EPOCHS": "FRAMEWORK.PSMT.TURN_STEPS",
    "FRAMEWORK.PSMT.RAMP_EPOCHS": "FRAMEWORK.PSMT.RAMP_STEPS",
}
"""Keys that count epochs, and those that count the same in steps."""


class Layer(NamedTuple):
    """The values that one file, or the command line, sets; later layers override earlier ones.

    Attributes:
        source: the file's path, `FITTED` or `COMMAND_LINE`.
        values: by key, such as "SOLVER.MAX_ITER".
    """

    source: str
    values: Mapping[str, Any]


def read_layers(config_file: str, opts: Sequence[str] = ()) -> list[Layer]:
    """The layers of a config, from the first `_BASE_` to the command line.

    The YAML of a data set stands for the settings of `OWN_DATA` with that data; an empty layer `FITTED` is between.

    Args:
        config_file: a YAML config, see `find_config`; "" for none.
        opts: keys and values in turn, as on the command line.

    Raises:
        InputError: a file is missing, is not YAML, has a tag that would run code or a key twice, or holds no keys.
    """
    files = _read_file(find_config(config_file)) if config_file else []
    return [*files, Layer(COMMAND_LINE, dict(zip(opts[::2], opts[1::2], strict=True)))]


def layer_of(layers: Sequence[Layer], key: str) -> int:
    """The index of the last layer that sets a key; -1 if none does."""
    return max((index for index, layer in enumerate(layers) if key in layer.values), default=-1)


def flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys such as "SOLVER.MAX_ITER", and values, of mappings within mappings."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def drop_overridden_epochs(cfg: CN, layers: Sequence[Layer]) -> None:
    """Set keys that count epochs to 0, in place, where a later layer sets the same in steps.

    Args:
        cfg: with the values of all layers, not frozen.
        layers: of `read_layers`.

    Raises:
        InputError: one layer sets both.
    """
    for epochs, steps in IN_EPOCHS.items():
        in_epochs, in_steps = layer_of(layers, epochs), layer_of(layers, steps)
        if in_epochs == in_steps >= 0 and value_of(cfg, epochs):
            raise InputError(f"{layers[in_steps].source}: sets {epochs} and {steps}; leave out one of the two")
        if in_epochs < in_steps:
            cfg.merge_from_list([epochs, 0])


def value_of(cfg: CN, key: str) -> Any:
    """The value of a key such as "SOLVER.MAX_ITER"."""
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return value


def describes_data(content: Mapping[str, Any]) -> bool:
    """Whether a YAML file's content is a data set's description rather than a config."""
    return {"classes", "lists"} <= content.keys()


def _read_file(file: str, above: tuple[str, ...] = ()) -> list[Layer]:
    """The layers of a config file and of its `_BASE_`; `above` are the files that have it as theirs."""
    try:
        content = read_yaml(Path(file), "configs/quickstart.yaml")
    except OSError as error:
        names = [] if file.endswith((".yaml", ".yml")) else preset_names()
        mend = suggest(file, names, otherwise="give a YAML file, see configs/")
        raise InputError(f"{file}: {error.strerror}; {mend}") from error
    if describes_data(content):
        data = {"DATASETS.DESCRIPTION": file, "OUTPUT_DIR": f"output/{content.get('name')}"}
        return [*_read_file(str(OWN_DATA)), Layer(FITTED, {}), Layer(file, data)]
    bases = content.pop("_BASE_", [])
    above = (*above, os.path.realpath(file))
    layers = []
    for base in bases if isinstance(bases, list) else [bases]:
        path = os.path.join(os.path.dirname(file), os.path.expanduser(str(base)))
        if os.path.realpath(path) in above:
            raise InputError(f"{file}: its _BASE_ {base} has it as _BASE_ in turn; leave out one of the two")
        layers += _read_file(path, above)
    return [*layers, Layer(os.path.normpath(file), dict(flatten(content)))]
