"""Data sets that are made, not downloaded: a registry of functions `generate(root: Path) -> None`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from fvcore.common.registry import Registry

from ...utils.errors import check_name
from ...utils.files import clear_write_errors
from .folder import Description

GENERATORS = Registry("GENERATORS")
"""Generators by name. One named X that is not registered yet is imported from X.py beside this file."""


def generate_if_missing(description: Description) -> None:
    """Make the data set's root if it is missing and the description names a generator.

    The data are made beside the root and moved there when complete, so that an interrupted run leaves none.

    Args:
        description: of the data set.

    Raises:
        InputError: there is no such generator, or the data cannot be written.
    """
    root = description.root
    if not description.generator or root.exists():
        return
    generate = _get_generator(description)
    with clear_write_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
            unfinished = Path(folder) / root.name
            unfinished.mkdir()
            generate(unfinished)
            try:
                os.replace(unfinished, root)
            except OSError:
                # Another process on the same file system was faster.
                if not root.is_dir():
                    raise


def _get_generator(description: Description) -> Callable[[Path], None]:
    name = description.generator
    module = f"{__package__}.{name}"
    if name not in GENERATORS:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    check_name(f"{description.path}: 'generator'", name, {"digits", *(known for known, _ in GENERATORS)})
    return GENERATORS.get(name)
