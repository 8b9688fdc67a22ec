"""Files of `torch.export`, read without running anything that is in them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import InputError
from .program_text import harmless_json


def harmless_copy(path: Path) -> io.BytesIO:
    """A file of `torch.export` with all that PyTorch's reader needs and nothing that it would run.

    That reader unpickles what is marked for it, the sample inputs and the weights of older layouts, loads compiled
    libraries, and makes code of texts. Here each entry is known by its name and is read, checked and written anew: what
    PyTorch gets is what was checked, even if two readers would find different things in the file.

    Args:
        path: in the layout of PyTorch 2.8 and later, or in that of 2.6 and 2.7.

    Raises:
        InputError: an entry is unknown or holds something else; the message names it.
        zipfile.BadZipFile, ValueError: the file is no such archive.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            try:
                target.writestr(entry.filename, _rule(entry)(source.read(entry)))
            except InputError as error:
                raise InputError(
                    f"{path}: {entry.filename} {error}, which could run code or is not known to be harmless; it was "
                    "not loaded, export the model anew with tools/export_model.py"
                ) from error
    copy.seek(0)
    return copy


def _as_it_is(data: bytes) -> bytes:
    return data


def _tensors(data: bytes) -> bytes:
    """What `torch.save` wrote, written anew; nothing stands for None."""
    if not data:
        return data
    copy = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), copy)
    except Exception as error:  # of many classes
        raise InputError("holds more than tensors and plain containers") from error
    return copy.getvalue()


_Rule = Callable[[bytes], bytes]
_RULES: dict[str, _Rule] = {
    # From PyTorch 2.8 on, in a folder of the file's own name.
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/[^/]+)": _as_it_is,
    r"[^/]+/models/model\.json": harmless_json,
    r"[^/]+/data/(weights/model_weights|constants/model_constants)_config\.json": harmless_json,
    r"[^/]+/data/(weights/weight|constants/tensor)_\d+": _as_it_is,
    r"[^/]+/data/(sample_inputs|weights|constants)/model\.pt": _tensors,
    # Before.
    r"version|extra_files/[^/]+": _as_it_is,
    r"serialized_exported_program\.json": harmless_json,
    r"serialized_(state_dict|constants|example_inputs)\.pt": _tensors,
}


def _rule(entry: zipfile.ZipInfo) -> _Rule:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise InputError("is compressed")  # it could grow beyond all memory
    for name, rule in _RULES.items():
        if re.fullmatch(name, entry.filename, re.ASCII):
            return rule
    raise InputError("is no entry of such a file")
