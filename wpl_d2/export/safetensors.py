"""safetensors: plain weights, with the metadata from which this project rebuilds the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from ..checkpoint import load_model
from ..inference.runtime_model import RuntimeModel, build_runtime_model
from ..modeling.model_metadata import metadata_to_texts


class SafeTensors:
    """All weights of the model under its own names, for `load_model`, MODEL.WEIGHTS and other projects."""

    suffix = ".safetensors"
    supports_boxes = True
    runs_code = False

    def write(self, model: nn.Module, metadata: Mapping[str, Any], path: Path, boxes: bool) -> None:
        """See `Format`; a detector is always included."""
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        # `save_file` makes a file that other users cannot read.
        path.write_bytes(save(weights, metadata_to_texts(metadata)))

    def read(self, path: Path, device: str) -> RuntimeModel:
        """See `Format`."""
        return build_runtime_model(*load_model(str(path), device=device))
