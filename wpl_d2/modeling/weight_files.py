"""Finding, downloading and reading weight files, without executing anything in them."""

from __future__ import annotations

import json
import logging
import pickle
import re
import socket
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import timm
import torch
from detectron2.utils.file_io import Detectron2Handler, PathManager
from safetensors import safe_open
from torch import Tensor
from torchvision.models import get_model_weights, list_models

from ..utils.errors import InputError, suggest

PACKAGE = "package://"
_TORCHVISION = "torchvision://"
_TIMM = "timm://"
_OPEN_CLIP = "open_clip://"
_ZIP = b"PK\x03\x04"
_CHUNK = 2**20  # bytes
_KEYS = "MODEL.WEIGHTS or --weights"
_PATIENCE = 60.0
"""Seconds to wait for a silent server."""


class DamagedFileError(InputError):
    """A weight file is truncated, or is something else."""


def read_weight_file(name: str) -> Any:
    """Read the content of a weight file or checkpoint, without executing anything in it.

    Args:
        name: in any form that `load_backbone_weights` takes.

    Returns:
        the content with tensors on the CPU; of a `.safetensors` file {"model": tensors, **metadata}, with all metadata
        that are valid JSON.

    Raises:
        InputError: the file does not exist, or holds more than tensors, arrays and plain containers.
        DamagedFileError: it cannot be read.
    """
    if name.startswith(_TIMM):
        return _timm_download(name)
    path, fetched = _find_file(name)
    try:
        return _reader(path)(path)
    except Exception as error:  # of any class, when a reader meets foreign bytes
        refused = re.search(r"GLOBAL (\S+(?: to \S+)?)", str(error))
        if refused:
            raise InputError(
                f"{name}: holds more than tensors and plain containers ({refused[1]}); it was not loaded, "
                "save its state dict alone"
            ) from error
        reason = _reason(error)
        if fetched:
            path.unlink(missing_ok=True)  # otherwise the next run would use it again
            raise DamagedFileError(
                f"{name}: what was downloaded cannot be read ({reason}), and was removed; try again, or give "
                f"{_KEYS} another file"
            ) from error
        raise DamagedFileError(f"{name}: cannot be read ({reason}); write or download it anew") from error


def _reason(error: Exception) -> str:
    """The first line of a reader's error, unless it is PyTorch's advice to execute the file."""
    text = str(error).strip().partition("\n")[0]
    return "it is not a weight file" if "weights_only" in text else text or type(error).__name__


def read_weights(name: str) -> dict[str, Tensor]:
    """Read the state dict in a file; args and errors as of `read_weight_file` and `extract_state_dict`."""
    return extract_state_dict(read_weight_file(name), name)


def extract_state_dict(content: Any, name: str) -> dict[str, Tensor]:
    """Extract the state dict from the content of a weight file.

    Args:
        content: of `read_weight_file`: a state dict, or a checkpoint with one under "model" or "state_dict".
        name: the file, for messages.

    Returns:
        tensors on the CPU, in the file's order.

    Raises:
        InputError: there is none, or it holds anything but tensors and arrays.
    """
    for wrapping in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{name}: is not a state dict; give a file that maps names to tensors")
    return {key: _tensor(name, key, value) for key, value in content.items()}


def _tensor(name: str, key: Any, value: Any) -> Tensor:
    try:
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.from_numpy(value)
    except (TypeError, ValueError) as error:  # a dtype or byte order that PyTorch lacks
        raise InputError(f"{name}: {key} is not an array for PyTorch ({error}); save it anew") from error
    plain = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    if not plain or not isinstance(key, str) or value.is_complex() or value.is_quantized:
        raise InputError(f"{name}: {key} is a {type(value).__name__}, not a tensor of numbers; give a file of weights")
    return value


def _find_file(name: str) -> tuple[Path, bool]:
    """The local path of a file, and whether it is a downloaded copy."""
    if name.startswith(PACKAGE):
        return _packaged_file(name), False
    if name.startswith(_OPEN_CLIP):
        return _open_clip_download(name), True
    address = _address(name)
    if address:
        return _fetch(name, address), True
    path = Path(url2pathname(urlparse(name).path)) if name.startswith("file:") else Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"{name}: no such file; correct its path in {_KEYS}")
    return path, False


def _address(name: str) -> str:
    """The URL of a remote file, or "" for a local one."""
    if name.startswith(_TORCHVISION):
        return _torchvision_url(name)
    if name.startswith(Detectron2Handler.PREFIX):
        return Detectron2Handler.S3_DETECTRON2_PREFIX + name.removeprefix(Detectron2Handler.PREFIX)
    return name if "://" in name and not name.startswith("file:") else ""


def _fetch(name: str, address: str) -> Path:
    """Download a file by Detectron2's `PathManager`, which keeps complete copies only."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        with _silent("iopath"):  # it logs the same error
            path = Path(PathManager.get_local_path(address))
    except (OSError, HTTPException, ValueError, AssertionError) as error:
        raise InputError(_not_fetched(name, address, error)) from error
    finally:
        socket.setdefaulttimeout(patience)
    if not path.is_file():
        raise InputError(f"{name}: is not an address that can be read; give {_KEYS} a file, or https://...")
    return path


def _timm_download(name: str) -> dict[str, Tensor]:
    model = name.removeprefix(_TIMM)
    if not timm.is_model(model):
        raise InputError(f"{name}: timm has no model {model}; {suggest(model, timm.list_models(), 'try resnet18')}")
    try:
        with _silent("huggingface_hub"):  # it logs every attempt
            return timm.create_model(model, pretrained=True).state_dict()
    except (RuntimeError, OSError) as error:
        raise InputError(_not_fetched(name, "", error)) from error


def _open_clip_download(name: str) -> Path:
    try:
        from open_clip import download_pretrained, get_pretrained_cfg, list_pretrained
    except ImportError as error:
        raise InputError(f"{name}: open_clip is not installed; run `pip install 'wpl_d2[clip]'`") from error
    chosen = name.removeprefix(_OPEN_CLIP)
    if not (found := get_pretrained_cfg(*chosen.partition("/")[::2])):
        known = ["/".join(pair) for pair in list_pretrained()]
        raise InputError(f"{name}: open_clip has no {chosen}; {suggest(chosen, known, 'try ViT-B-16/openai')}")
    try:
        with _silent("huggingface_hub"):  # it logs every attempt
            return Path(download_pretrained(found))
    except (OSError, RuntimeError, HTTPException, ValueError) as error:
        raise InputError(_not_fetched(name, "", error)) from error


def _not_fetched(name: str, address: str, error: Exception) -> str:
    place = f" from {address}" if address not in ("", name) else ""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return (
        f"{name}: cannot be downloaded{place} ({reason}); correct {_KEYS}, or fetch the file by hand and give its path"
    )


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Suppress a library's log messages inside."""
    library = logging.getLogger(logger)
    level = library.level
    library.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        library.setLevel(level)


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
        raise InputError(f"{name}: torchvision has no model {model}; {suggest(model, known, 'try resnet50')}")
    # The first training recipe, from which the published results of dense prediction start.
    return get_model_weights(model)["IMAGENET1K_V1"].url


def _reader(path: Path) -> Callable[[Path], Any]:
    readers: dict[str, Callable[[Path], Any]] = {".pkl": _read_pickle, ".safetensors": _read_safetensors}
    return readers.get(path.suffix, _read_torch)


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            _check_records(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_records(path: Path) -> None:
    """Verify the checksums in a PyTorch file, which PyTorch writes but never reads.

    Its formats before 1.6, safetensors and pickles have none.

    Raises:
        BadZipFile: a checksum does not match.
        ValueError: a record is compressed, which could unpack to any size; PyTorch compresses only programs.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record.filename} is compressed, as in no file of weights")
            # 0 is the checksum of an empty record, and of files written without checksums.
            if record.CRC:
                with archive.open(record) as content:
                    while content.read(_CHUNK):
                        pass


def _read_safetensors(path: Path) -> Any:
    with safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is not a mapping
    return {**_json_values(texts), "model": tensors}


def _json_values(texts: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for key, text in texts.items():
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:  # another project's metadata
            continue
    return values


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        # The files of Detectron2's model zoo were written by Python 2.
        return _ArrayUnpickler(file, encoding="latin1").load()


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as far as pickled arrays need it."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"GLOBAL _codecs.encode to {encoding}")
    return text.encode("latin1")


def _array_globals() -> dict[tuple[str, str], Any]:
    """The globals that pickled arrays refer to, under the module names of NumPy 1 and 2."""
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
    """An unpickler for NumPy arrays and plain containers only; an ordinary one runs any code that a file names."""

    _ALLOWED = _array_globals()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._ALLOWED[module, name]
