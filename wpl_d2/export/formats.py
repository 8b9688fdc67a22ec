"""The formats there are, and one reader for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ..checkpoint.checkpointer import load_model
from ..inference.runtime_model import RuntimeModel, build_runtime_model
from ..modeling.build import check_device
from ..utils.errors import InputError
from .onnx import Onnx
from .safetensors import SafeTensors
from .torch_export import TorchExport
from .torchscript import TorchScript


class Format(Protocol):
    """A kind of file.

    Attributes:
        suffix: of its names.
        supports_boxes: whether it can hold the detector.
        runs_code: whether a file can do whatever the one who made it wanted.
    """

    suffix: str
    supports_boxes: bool
    runs_code: bool

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """Write a file.

        Args:
            model: from `load_model`, on the CPU.
            metadata: as `build_metadata` has it.
            path: with the format's suffix.
            boxes: whether to put the detector in, too; only where `supports_boxes`.
        """

    def read(self, path: Path, device: str) -> RuntimeModel:
        """Read a file.

        Args:
            path: that `write` wrote.
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
"""By the name that `tools/export_model.py --format` takes; another format is another entry."""


def open_model(path: str | Path, which: str = "", device: str = "cpu", trust_code: bool = False) -> RuntimeModel:
    """A trained model from a checkpoint or an exported file, without running anything that is in it.

    Args:
        path: `.pth` of a training, or with the suffix of one of `FORMATS`.
        which: "teacher" or "student" of a checkpoint; by default the one to use.
        device: to run on.
        trust_code: whether to read a file that is a program.

    Raises:
        InputError: there is no such file or device, it cannot be read, would run code, or there is nothing to choose
            in it.
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
