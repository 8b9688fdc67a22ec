"""What a checkpoint says of its model (config, classes, colours), believed only as far as it is of the right kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import InputError
from .weight_files import read_file


def register_classes(cfg: Any) -> None:
    """Let the metadata of DATASETS.TEST name the classes in a process that has not registered the data set.

    Detectron2's `DefaultPredictor` builds its model by a training's config and looks there; a checkpoint says of
    itself what its classes are, so that neither the data set nor its description has to be at hand. Nothing is
    done where MODEL.WEIGHTS is no checkpoint of a training with this data set.

    Args:
        cfg: a complete config.

    Raises:
        InputError: the checkpoint says something of itself that cannot be.
    """
    path = Path(cfg.MODEL.WEIGHTS)
    names = [name for name in cfg.DATASETS.TEST if name not in DatasetCatalog]
    if not names or path.suffix != ".pth" or not path.is_file():
        return
    try:
        content = read_file(str(path))
    except InputError:
        return  # who loads the weights says what is wrong with them
    if not is_checkpoint(content):
        return
    check_metadata(content, str(path))
    known = read_config(content["config"], str(path)).get("DATASETS", {}).get("TEST", ())
    classes, colors, objects = content["classes"], [tuple(color) for color in content["colors"]], content["objects"]
    for name in names:
        if name in known:
            MetadataCatalog.get(name).set(
                stuff_classes=classes,
                stuff_colors=colors,
                thing_classes=[classes[index] for index in objects],
                thing_colors=[colors[index] for index in objects],
            )


METADATA_KEYS = ("config", "classes", "colors", "objects", "preprocessing")
"""What a checkpoint and every exported file say of themselves: see `wpl_d2.checkpoint.checkpointer.build_metadata`."""
_MOST_NODES = 100_000
"""Of a config: a short text can stand for a tree without end."""


def is_checkpoint(content: Any) -> bool:
    """Whether what `read_file` returned holds a whole model with its config, rather than weights alone."""
    return isinstance(content, dict) and {"model", *METADATA_KEYS} <= content.keys()


def check_metadata(content: dict[str, Any], source: str) -> None:
    """Check what a checkpoint says of itself, but for the config (`read_config`).

    Args:
        content: for which `is_checkpoint` holds.
        source: its file, for the message.

    Raises:
        InputError: something is of another kind than `build_metadata` writes.
    """
    classes, colors, objects = content["classes"], content["colors"], content["objects"]
    right = {
        "config": isinstance(content["config"], str),
        "classes": _is_list(classes, str) and len(classes) > 0,
        "colors": isinstance(colors, list) and all(_is_list(c, int) and len(c) == 3 for c in colors),
        "objects": _is_list(objects, int) and isinstance(classes, list) and all(0 <= i < len(classes) for i in objects),
        "preprocessing": _is_preprocessing(content["preprocessing"]),
    }
    right["colors"] = right["colors"] and right["classes"] and len(colors) == len(classes)
    wrong = [key for key, holds in right.items() if not holds]
    if wrong:
        raise InputError(f"{source}: its {wrong[0]!r} is none; give a checkpoint that a training wrote")


def _is_list(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_preprocessing(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("format"), str)
        and all(_is_list(value.get(key), (int, float)) for key in ("mean", "std"))
    )


def read_config(text: str, source: str) -> CfgNode:
    """The config in a checkpoint, of any version, from YAML that can only be data.

    Args:
        text: as `CfgNode.dump` wrote it.
        source: its file, for the message.

    Raises:
        InputError: it is none.
    """
    try:
        tree = yaml.safe_load(text)
        if not isinstance(tree, dict) or not _is_small(tree):
            raise ValueError("no config")
        return CfgNode(tree)
    except (yaml.YAMLError, AssertionError, AttributeError, RecursionError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{source}: its config cannot be read ({reason}); give a checkpoint that a training wrote"
        ) from error


def _is_small(tree: Any) -> bool:
    todo, seen = [tree], 0
    while todo and seen + len(todo) <= _MOST_NODES:
        node = todo.pop()
        seen += 1
        todo.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    return not todo
