"""Model metadata: what checkpoints and exported files say of their model, validated when read.

A dict of plain data: "config" (YAML text), "classes" (names by class id), "colors" ([r, g, b] by class id), "objects"
(class ids with boxes) and "preprocessing": "format", "mean" and "std" in 0..255, and, since there are images of other
channels, "channels" and "value_range", for each the values that become 0 and 255, or none for images of eight bits.
`wpl_d2.checkpoint.metadata` builds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import InputError
from .weight_files import read_weight_file

METADATA_KEYS = ("config", "classes", "colors", "objects", "preprocessing")
_MAX_NODES = 100_000
"""Of a config: by anchors a short YAML text can stand for an endless tree."""


def is_checkpoint(content: Any) -> bool:
    """Whether the content of a weight file is a whole model with metadata, rather than weights alone."""
    return isinstance(content, dict) and {"model", *METADATA_KEYS} <= content.keys()


def check_metadata(content: Mapping[str, Any], source: str) -> None:
    """Validate metadata, except for the config (see `read_config`).

    Args:
        content: has all `METADATA_KEYS`.
        source: the file, for the message.

    Raises:
        InputError: an entry has another type or range than `build_metadata` writes.
    """
    classes, colors, objects = content["classes"], content["colors"], content["objects"]
    valid = {
        "config": isinstance(content["config"], str),
        "classes": _is_list(classes, str) and len(classes) > 0,
        "colors": isinstance(colors, list) and all(_is_list(c, int) and len(c) == 3 for c in colors),
        "objects": _is_list(objects, int) and isinstance(classes, list) and all(0 <= i < len(classes) for i in objects),
        "preprocessing": _is_preprocessing(content["preprocessing"]),
    }
    valid["colors"] = valid["colors"] and valid["classes"] and len(colors) == len(classes)
    invalid = [key for key, holds in valid.items() if not holds]
    if invalid:
        raise InputError(
            f"{source}: its metadata {invalid[0]!r} is invalid; give a file that a training or export wrote"
        )


def _is_list(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_preprocessing(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("format"), str)
        and all(_is_list(value.get(key), (int, float)) for key in ("mean", "std"))
    )


def read_config(text: str, source: str) -> CfgNode:
    """Parse the config in metadata, of any version, as plain data.

    Args:
        text: as written by `CfgNode.dump`.
        source: the file, for the message.

    Raises:
        InputError: it is not a config.
    """
    try:
        tree = yaml.safe_load(text)
        if not isinstance(tree, dict) or not _is_small(tree):
            raise ValueError("no config")
        return CfgNode(tree)
    except (yaml.YAMLError, AssertionError, AttributeError, RecursionError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{source}: its config cannot be read ({reason}); give a file that a training or export wrote"
        ) from error


def _is_small(tree: Any) -> bool:
    todo, seen = [tree], 0
    while todo and seen + len(todo) <= _MAX_NODES:
        node = todo.pop()
        seen += 1
        todo.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    return not todo


def metadata_to_texts(metadata: Mapping[str, Any], min_size: int = 1) -> dict[str, str]:
    """Encode metadata for an exported file: one JSON text per key.

    Args:
        metadata: see the module.
        min_size: the smallest image side in pixels that the file accepts, stored as "min_size".
    """
    return {**{key: json.dumps(metadata[key]) for key in METADATA_KEYS}, "min_size": json.dumps(min_size)}


def metadata_from_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Decode and validate the metadata of an exported file.

    Args:
        texts: by key; others are ignored.
        path: the file, for messages.

    Raises:
        InputError: a key is missing or invalid.
    """
    if not all(texts.get(key) for key in METADATA_KEYS):
        raise InputError(f"{path}: has no class names; give a file that tools/export_model.py wrote")
    try:
        metadata = {key: json.loads(texts[key]) for key in METADATA_KEYS}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its metadata cannot be read; export it anew") from error
    check_metadata(metadata, str(path))
    read_config(metadata["config"], str(path))
    return metadata


def register_classes(cfg: Any) -> None:
    """Register the class names and colors of a checkpoint for DATASETS.TEST where the data set is not registered.

    Detectron2's `DefaultPredictor` builds its model from a training's config and takes the metadata of DATASETS.TEST.
    So it works without the data set and its description. Nothing is done if MODEL.WEIGHTS is not a checkpoint of a
    training with this data set.

    Args:
        cfg: a complete config.

    Raises:
        InputError: the checkpoint's metadata is invalid.
    """
    path = Path(cfg.MODEL.WEIGHTS)
    names = [name for name in cfg.DATASETS.TEST if name not in DatasetCatalog]
    if not names or path.suffix != ".pth" or not path.is_file():
        return
    try:
        content = read_weight_file(str(path))
    except InputError:
        return  # reported where the weights are loaded
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
