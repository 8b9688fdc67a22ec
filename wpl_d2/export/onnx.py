"""ONNX: runs in ONNX Runtime and what else reads the format."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .about import about_from_texts, about_to_texts
from .deployable import Deployable, integer_padding, sample_images
from .deployed import Deployed

_SIZES = {"images": {0: "batch", 2: "height", 3: "width"}}


class Onnx:
    """The segmentation: input "images" (batch, 3, height, width) float, output "logits"."""

    suffix = ".onnx"
    can_find = False

    def write(self, model: nn.Module, about: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """See `Format`.

        Raises:
            InputError: the packages of the extra `onnx` are not installed.
        """
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _need(package)
        with torch.no_grad(), integer_padding():
            program = torch.onnx.export(
                Deployable(model),
                (sample_images(),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=_SIZES,
                dynamo=True,
                verbose=False,
            )
        assert program is not None  # the other exporter's result
        program.model.metadata_props.update(about_to_texts(about))
        program.save(path, external_data=False)

    def read(self, path: Path, device: str) -> Deployed:
        """See `Format`.

        Raises:
            InputError: ONNX Runtime is not installed.
        """
        runtime = _need("onnxruntime")
        providers = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its exceptions have no common class of their own
            raise InputError(f"{path}: is no ONNX file ({error}); export it anew") from error

        def segment(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"images": images.cpu().numpy()})[0]).to(device)

        return Deployed(about_from_texts(session.get_modelmeta().custom_metadata_map, path), segment, find=None)


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{package}: is not installed; run `pip install 'wpl_d2[onnx]'`") from error
