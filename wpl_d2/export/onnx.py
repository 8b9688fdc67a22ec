"""ONNX, for ONNX Runtime and other runtimes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..inference.runtime_model import RuntimeModel
from ..modeling.model_metadata import metadata_from_texts, metadata_to_texts
from ..utils.errors import InputError
from .wrapper import ExportWrapper, integer_padding

_SIZES = {"images": {0: "batch", 2: "height", 3: "width"}}


class Onnx:
    """The segmentation: input "images" (batch, channels, height, width) float, output "logits"."""

    suffix = ".onnx"
    supports_boxes = False
    runs_code = False

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """See `Format`.

        Raises:
            InputError: the packages of the extra `onnx` are not installed.
        """
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _need(package)
        wrapper = ExportWrapper(model)
        with torch.no_grad(), integer_padding():
            program = torch.onnx.export(
                wrapper,
                (wrapper.sample_images(),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=_SIZES,
                dynamo=True,
                verbose=False,
            )
        assert program is not None  # as the TorchScript-based exporter returns
        program.model.metadata_props.update(metadata_to_texts(metadata))
        program.save(path, external_data=False)

    def read(self, path: Path, device: str) -> RuntimeModel:
        """See `Format`.

        Raises:
            InputError: the packages of the extra `onnx` are not installed, or the model refers to other files.
        """
        runtime, content = _need("onnxruntime"), path.read_bytes()
        _check_self_contained(content, path)
        providers = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # its exceptions have no common base class
            raise InputError(f"{path}: is not an ONNX file ({error}); export it anew") from error

        def segment(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"images": images.cpu().numpy()})[0]).to(device)

        return RuntimeModel(
            metadata_from_texts(session.get_modelmeta().custom_metadata_map, path), segment, detect=None
        )


def _check_self_contained(content: bytes, path: Path) -> None:
    """Reject what makes ONNX Runtime open other files: external weights, and operators that are not ONNX's own."""
    onnx = _need("onnx")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's class, which depends on its implementation
        raise InputError(f"{path}: is not an ONNX file; export it anew") from error
    own = {"", "ai.onnx", *(function.domain for function in model.functions)}
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            raise InputError(
                f"{path}: the tensor {message.name!r} is in another file; export the model with tools/export_model.py, "
                "which puts all into one"
            )
        if isinstance(message, onnx.NodeProto) and message.domain not in own:
            raise InputError(
                f"{path}: has the operator {message.domain}.{message.op_type}, which is not one of ONNX; export the "
                "model with tools/export_model.py"
            )


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                yield from _messages(part)


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{package}: is not installed; run `pip install 'wpl_d2[onnx]'`") from error
