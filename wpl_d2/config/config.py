"""The config of a run: the defaults, then YAML files, then the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import zip_longest
from typing import Any

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.projects.deeplab import add_deeplab_config

from ..utils.errors import InputError, suggest
from .fitting import Setting
from .keys import KEYS, NAMES, RENAMED, RENAMED_VALUES
from .layers import COMMAND_LINE, FITTED, Layer, drop_overridden_epochs, read_layers, value_of
from .validation import check_config, check_overrides

_LISTS_OF_NAMES = {key.name for key in KEYS if key.constraint is NAMES}
_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


def get_cfg() -> CN:
    """Detectron2's default config with this project's keys and defaults."""
    # Registers the model: whoever has the config, such as a script with `DefaultPredictor`, can build it.
    from .. import modeling  # noqa: F401

    cfg = get_detectron2_cfg()
    add_deeplab_config(cfg)
    add_wpl_config(cfg)
    for old, new in RENAMED.items():
        cfg.register_renamed_key(old, new)  # for configs that Detectron2's own methods merge
    return cfg


def add_wpl_config(cfg: CN) -> None:
    """Add the keys of keys.py with their defaults to `cfg`, in place."""
    for key in KEYS:
        *sections, name = key.name.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CN())
        node[name] = deepcopy(key.default)


def load_cfg(config_file: str, opts: Sequence[str] = ()) -> CN:
    """The defaults with the values of a YAML file and of `KEY VALUE` pairs, checked; the lists of the data filled in.

    Args:
        config_file: a YAML config, a preset's name, or a data set's YAML, see `read_layers`; "" for none.
        opts: keys and values in turn, as on the command line.

    Raises:
        InputError: a file that cannot be read, an unknown key (the message names the nearest ones), an invalid value,
            keys that contradict each other, or an override that only another backbone reads.
    """
    layers = load_layers(config_file, opts)
    cfg = _merge_with_lists(layers)
    drop_overridden_epochs(cfg, layers)
    check_config(cfg)
    check_overrides(cfg, opts[::2])
    return cfg


def load_layers(config_file: str, opts: Sequence[str] = ()) -> list[Layer]:
    """The layers of a config, those of settings that fit the data filled in; args and errors as of `load_cfg`."""
    # First, since it checks that the words are pairs.
    fitted = {setting.key: setting.value for setting in fitted_settings(config_file, opts)}
    layers = read_layers(config_file, opts)
    return [Layer(FITTED, fitted) if layer.source == FITTED else layer for layer in layers]


def fitted_settings(config_file: str, opts: Sequence[str] = ()) -> list[Setting]:
    """The settings that fit the data of a config that is a data set's YAML, but for those that are set otherwise.

    Args:
        config_file: as for `load_cfg`; of other configs there are none.
        opts: keys and values in turn.

    Raises:
        InputError: as `load_cfg`, or the labeled images cannot be read.
    """
    # Data sets know what is in them, and what reads them knows this package.
    from ..data.dataset_facts import fit_to_data

    if problem := find_misplaced(opts, set(leaf_keys(get_cfg()))):
        raise InputError(f"{COMMAND_LINE}: {problem}")
    layers = read_layers(config_file, opts)
    place = next((index for index, layer in enumerate(layers) if layer.source == FITTED), None)
    if place is None:
        return []
    cfg = _merge_with_lists(layers)
    given = {key: value_of(cfg, key) for layer in layers[place:] for key in layer.values}
    return fit_to_data(cfg, given)


def _merge_with_lists(layers: Sequence[Layer]) -> CN:
    from ..data.datasets.split import choose_lists

    cfg = merge_layers(layers)
    choose_lists(cfg, layers)
    return cfg


def merge_layers(layers: Sequence[Layer]) -> CN:
    """The defaults, overlaid by each layer in turn.

    Raises:
        InputError: an unknown key, or a value of another type than the key's.
    """
    cfg = get_cfg()
    for source, values in layers:
        for key, value in values.items():
            set_value(cfg, key, value, source)
    return cfg


def override(cfg: CN, opts: Sequence[str]) -> None:
    """Set keys of `cfg`, in place.

    Args:
        cfg: not frozen.
        opts: keys and values in turn, as on the command line.

    Raises:
        InputError: an unknown key, a key without a value, or a value of another type than the key's.
    """
    if problem := find_misplaced(opts, set(leaf_keys(cfg))):
        raise InputError(f"{COMMAND_LINE}: {problem}")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        set_value(cfg, key, value, COMMAND_LINE)


def set_value(cfg: CN, key: str, value: Any, source: str) -> None:
    """Set one key, in place.

    Whole numbers are accepted for floats; lists, tuples and single names for lists of names.

    Args:
        cfg: not frozen.
        key: such as "SOLVER.MAX_ITER".
        value: from YAML or the command line; text that is a Python literal is read as one.
        source: where it comes from, for the message.

    Raises:
        InputError: the key is unknown or renamed, or its values are of another type.
    """
    if (present := translate(key, value)) != (key, value):
        old, new = (key, present[0]) if key in RENAMED else (f"{key} {value}", present[1])
        raise InputError(f"{source}: {old} is now {new}; write that")
    *path, name = key.split(".")
    node: Any = cfg
    for part in path:
        node = node.get(part) if isinstance(node, CN) else None
    if not isinstance(node, CN) or name not in node:
        mend = suggest(key, leaf_keys(cfg), otherwise="see wpl_d2/config/keys.py")
        raise InputError(f"{source}: no config key {key}; {mend}")
    old = node[name]
    if isinstance(old, CN):
        raise InputError(f"{source}: {key} is a section; set keys of it, such as {key}.{next(leaf_keys(old), 'KEY')}")
    try:
        cfg.merge_from_list([key, _fit(value, old, key in _LISTS_OF_NAMES)])
    except ValueError as error:
        given = CN._decode_cfg_value(value)
        raise InputError(
            f"{source}: {key} cannot be {given!r} of type {type(given).__name__}; give it {_example(old, given)}"
        ) from error


def translate(key: str, value: Any) -> tuple[str, Any]:
    """A key and its value as they are called now, if a former version called them otherwise."""
    key = RENAMED.get(key, key)
    return key, RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def find_misplaced(opts: Sequence[str], keys: Collection[str]) -> str:
    """Why a command line's overrides are no list of KEY VALUE pairs, and how to mend it; "" if they are one.

    Args:
        opts: keys and values in turn.
        keys: all valid ones.
    """
    joined = next((word for word in opts[::2] if "=" in word and word.partition("=")[0] in keys), "")
    if joined:
        return f"{joined}: write `{joined.replace('=', ' ', 1)}`, with a space"
    for key, value in zip_longest(opts[::2], opts[1::2]) if len(opts) % 2 else ():
        if key not in keys:
            return (
                f"{key} stands where a key is expected, and is none; write the parts of a value as one, in quotes, "
                'such as "(321, 321)"'
            )
        if value is None or value in keys:
            return f"{key} has no value; add the missing value"
    return ""


def leaf_keys(node: CN, prefix: str = "") -> Iterator[str]:
    """Every key of a config that has a value, such as "SOLVER.MAX_ITER"."""
    for key, value in node.items():
        if isinstance(value, CN):
            yield from leaf_keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _fit(value: Any, old: Any, names: bool) -> Any:
    """The value in the type of the old one, where that does not change its meaning; `names`: it is a list of such."""
    if isinstance(old, float):
        return _whole_to_float(value)
    if isinstance(old, str) and isinstance(value, str) and type(CN._decode_cfg_value(value)) in (int, float):
        return repr(value)  # a split such as 1_16, which Python reads as 116
    return type(old)(_split_names(value)) if names and isinstance(CN._decode_cfg_value(value), str) else value


def _split_names(text: str) -> list[str]:
    return [name.strip() for name in text.strip("()[] ").split(",") if name.strip()]


def _whole_to_float(value: Any) -> Any:
    if isinstance(value, str):
        with suppress(ValueError):
            value = int(value)
    return float(value) if type(value) is int else value


def _example(old: Any, given: Any) -> str:
    """What to write instead of a value of the wrong type."""
    if isinstance(old, str):
        return f"text, in quotes: '{given}'"
    if not isinstance(old, list | tuple):
        return _KINDS.get(type(old), type(old).__name__)
    parts = _split_names(given) if isinstance(given, str) else [given] * max(1, len(old))
    return f'several values, such as "{type(old)(parts)}"'
