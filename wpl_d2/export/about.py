"""What an exported file says of itself: the same texts in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..modeling.checkpoint_file import ABOUT


def about_to_texts(about: Mapping[str, Any], min_size: int = 1) -> dict[str, str]:
    """One JSON text for each key.

    Args:
        about: as `describe_run` has it.
        min_size: the fewest pixels a side of images that the file takes.

    Returns:
        "config" (the YAML text), "classes" (names by class id), "colors" ([r, g, b] by class id), "objects" (class
        ids that have boxes), "preprocessing" (which the graph does itself: "format", "mean", "std") and "min_size".
    """
    return {**{key: json.dumps(about[key]) for key in ABOUT}, "min_size": json.dumps(min_size)}


def about_from_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The inverse of `about_to_texts`.

    Args:
        texts: perhaps with others among them.
        path: the file, for messages.

    Raises:
        InputError: the file does not say what it is.
    """
    if not all(texts.get(key) for key in ABOUT):
        raise InputError(f"{path}: does not name its classes; give a file that tools/export_model.py wrote")
    try:
        about = {key: json.loads(texts[key]) for key in ABOUT}
        known = range(len(about["classes"]))
        fits = len(about["colors"]) == len(known) and all(index in known for index in about["objects"])
        fits = fits and isinstance(yaml.safe_load(about["config"]), dict)
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        fits = False
    if not fits:
        raise InputError(f"{path}: what it says of its classes and config cannot be read; export it anew")
    return about
