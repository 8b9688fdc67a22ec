"""The export formats, and one function to open files of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ..checkpoint import load_model
from ..config.validation import check_device
from ..inference.runtime_model import RuntimeModel, build_runtime_model
from ..utils.errors import InputError
from .onnx import Onnx
from .safetensors import SafeTensors
from .torch_export import TorchExport
from .torchscript import TorchScript


class Format(Protocol):
    """A file format.

    Attributes:
        suffix: of file names.
        supports_boxes: whether a file can hold the detector.
        runs_code: whether a file is a program that can do anything.
    """

    suffix: str
    supports_boxes: bool
    runs_code: bool

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """Write a file.

        Args:
            model: of `load_model`, on the CPU.
            metadata: as plain data, see `wpl_d2.modeling.model_metadata`.
            path: with the format's suffix.
            boxes: whether to include the detector; only with `supports_boxes`.
        """

    def read(self, path: Path, device: str) -> RuntimeModel:
        """Read a file.

        Args:
            path: a file of `write`.
            device: to run on.

        Raises:
            InputError: it is something else.
        """


FORMATS: dict[str, Format] = {
    "torchscript": TorchScript(),
    "onnx": Onnx(),
    "torch_export": TorchExport(),
    "safetensors": SafeTensors(),
}
"""By the name for `tools/export_model.py --format`."""


def open_model(path: str | Path, which: str = "", device: str = "cpu", trust_code: bool = False) -> RuntimeModel:
    """Open a checkpoint or exported file, without executing anything in it unless `trust_code`.

    Args:
        path: a training's `.pth`, or a file with the suffix of one of `FORMATS`.
        which: "teacher" or "student" of a checkpoint; by default the teacher if there is one.
        device: to run on.
        trust_code: whether to open a TorchScript file, which is a program.

    Raises:
        InputError: the file or device does not exist, the file cannot be read or would execute code, or `which` does
            not apply.
    """
    check_device("--device", device)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint or an exported model")
    by_suffix = {known.suffix: known for known in FORMATS.values()}
    if path.suffix not in by_suffix:
        return build_runtime_model(*load_model(str(path), which, device))
    if which:
        raise InputError(f"--model: {path} holds one model; leave it out, or give the training's checkpoint")
    chosen = by_suffix[path.suffix]
    if chosen.runs_code and not trust_code:
        raise InputError(
            f"{path}: is a program, which can do anything on this machine; if you trust who made it, add --trust-code "
            "(in Python: trust_code=True), else take a checkpoint or a file of another format"
        )
    return chosen.read(path, device)
