"""TorchScript: runs with PyTorch, C++ included; with boxes torchvision's operators are needed too."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401, registers the operators that boxes need
from detectron2.export.torchscript_patch import patch_builtin_len
from torch import Tensor, nn

from ..inference.runtime_model import RuntimeModel
from ..modeling.model_metadata import METADATA_KEYS, metadata_from_texts, metadata_to_texts
from ..structures import Detections
from ..utils.errors import InputError
from .wrapper import ExportWrapper


class TorchScript:
    """Methods `forward`, images (B, channels, H, W) float to logits, and `detect`, one image to its boxes."""

    suffix = ".pt"
    supports_boxes = True
    runs_code = True

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """See `Format`."""
        wrapper = ExportWrapper(model)
        images = wrapper.sample_images()
        inputs: dict[str, tuple[Tensor, ...]] = {"forward": (images,)}
        if boxes:
            inputs["detect"] = (images[:1],)
        # Otherwise the numbers of boxes would be traced as constants.
        with torch.no_grad(), patch_builtin_len():
            traced = torch.jit.trace_module(wrapper, inputs, check_trace=False)
        # Through memory: on a full disk PyTorch's file writer aborts the process.
        content = io.BytesIO()
        torch.jit.save(traced, content, _extra_files=metadata_to_texts(metadata))
        path.write_bytes(content.getvalue())

    def read(self, path: Path, device: str) -> RuntimeModel:
        """See `Format`."""
        texts = dict.fromkeys(METADATA_KEYS, "")
        try:
            module = torch.jit.load(str(path), map_location=device, _extra_files=texts)
        except RuntimeError as error:
            raise InputError(f"{path}: is not a TorchScript file; export it anew") from error

        # In files of earlier versions the method is `find`.
        method: Any = getattr(module, "detect", None) or getattr(module, "find", None)

        def detect(images: Tensor) -> list[Detections]:
            return [Detections(*method(image[None].to(device))) for image in images]

        metadata = metadata_from_texts(texts, path)
        return RuntimeModel(metadata, lambda images: module(images.to(device)), detect if method else None)
