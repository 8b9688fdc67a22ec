"""Semantic segmentation from few labels, with weighted pseudo-labels, on Detectron2."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import get_cfg
    from .frameworks import build_framework
    from .modeling import build_model

__all__ = ["build_framework", "build_model", "get_cfg"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `wpl_d2.weighting` works where there is no Detectron2.
    from importlib import import_module

    rooms = {"get_cfg": "config", "build_model": "modeling", "build_framework": "frameworks"}
    if name not in rooms:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{rooms[name]}", __name__), name)
