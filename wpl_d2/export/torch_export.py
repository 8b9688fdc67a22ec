"""`torch.export`: a graph of ATen operators, for PyTorch's compilers and runtimes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from ..inference.runtime_model import RuntimeModel
from ..modeling.model_metadata import METADATA_KEYS, metadata_from_texts, metadata_to_texts
from ..utils.errors import InputError
from .torch_export_check import sanitized_copy
from .wrapper import ExportWrapper, integer_padding


class TorchExport:
    """The segmentation: images (B, channels, H, W) float to logits, for any batch size, height and width."""

    suffix = ".pt2"
    supports_boxes = False
    runs_code = False

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """See `Format`."""
        program = export_program(ExportWrapper(model))
        # Through memory: on a full disk PyTorch's file writer aborts the process.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=metadata_to_texts(metadata, _min_size(program)))
        path.write_bytes(content.getvalue())

    def read(self, path: Path, device: str) -> RuntimeModel:
        """See `Format`.

        Raises:
            InputError: something in it could execute code.
        """
        texts = dict.fromkeys(METADATA_KEYS, "")
        try:
            program = torch.export.load(sanitized_copy(path), extra_files=texts)
            module, least = move_to_device_pass(program, device).module(), _min_size(program)
        except InputError:
            raise
        except Exception as error:  # of any class: PyTorch tries several readers in turn
            version = torch.__version__
            raise InputError(
                f"{path}: is not a torch.export file that PyTorch {version} reads; export it anew"
            ) from error

        def segment(images: Tensor) -> Tensor:
            height, width = images.shape[-2:]
            if min(height, width) < least:
                raise InputError(
                    f"{path}: takes images of {least} pixels a side and more, not {height}x{width} (height x width); "
                    "use another format"
                )
            with torch.no_grad():
                return module(images.to(device))

        return RuntimeModel(metadata_from_texts(texts, path), segment, detect=None, min_size=least)


def export_program(wrapper: ExportWrapper) -> ExportedProgram:
    """Export the graph of a model for any batch size, height and width.

    Args:
        wrapper: on the CPU.
    """
    sizes = {"images": {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}}
    with torch.no_grad(), integer_padding():
        program = torch.export.export(wrapper, (wrapper.sample_images(),), dynamic_shapes=sizes, strict=False)
    # The shape rule of max pooling leaves guards for odd or even sizes, which would reject half of all images. The
    # graph does not need them: `compare` checks it at both.
    program._guards_code = []
    return program


def _min_size(program: ExportedProgram) -> int:
    """The smallest image side in pixels that a graph's shape constraints allow."""
    (name,) = program.graph_signature.user_inputs
    (images,) = (node for node in program.graph.nodes if node.name == name)
    sides = [program.range_constraints[side.node.expr] for side in images.meta["val"].shape[2:]]
    return max(int(side.lower) for side in sides)
