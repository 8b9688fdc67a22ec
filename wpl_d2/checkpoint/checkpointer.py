"""Checkpoints that are whole or absent, hold everything that shapes a run, and load without running code."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from ..modeling import UnifiedSegDet, build_model
from ..modeling.model_metadata import METADATA_KEYS, check_metadata, is_checkpoint, read_config
from ..modeling.weight_files import DamagedFileError, extract_state_dict, read_weight_file
from ..modeling.weights import (
    MODEL_NAMES,
    check_compatible,
    load_backbone_state,
    load_model_state,
    select_weights,
    weights_of,
)
from ..utils.errors import InputError
from ..utils.files import DeferredErrorFile, clear_write_errors, unused_path
from .classes import ClassNames, check_model_classes, get_run_classes, match_classes
from .metadata import build_metadata, restore_cfg
from .run_folder import check_disk_space, lock_folder, move_aside, unlock_folder

logger = logging.getLogger(__name__)

STEP_FILE = re.compile(r"model_(\d{7})\.pth")


class FrameworkCheckpointer(Checkpointer):
    """Saves and loads a framework with its trainer.

    A file is written beside its final name, flushed to the disk and renamed, so that a killed process leaves the
    previous checkpoint untouched. `load` admits tensors and plain containers only and wants every key.
    """

    def __init__(self, model: torch.nn.Module, cfg: Any, **checkpointables: Any) -> None:
        """Save to and load from `cfg.OUTPUT_DIR`, on the main process alone.

        Args:
            model: the framework, in DDP or not.
            cfg: the run's config, which is saved with the weights.
            checkpointables: what else has a state, such as `trainer`.
        """
        super().__init__(model, cfg.OUTPUT_DIR, save_to_disk=comm.is_main_process(), **checkpointables)
        self._metadata = build_metadata(cfg)
        self._classes = get_run_classes(cfg)
        self._source = ""
        # Not in an evaluation beside a training that is about to rename its own.
        if self.save_to_disk and self._trains:
            lock_folder(Path(self.save_dir))
            for stale in Path(self.save_dir).glob("*.tmp"):
                stale.unlink()

    @property
    def _trains(self) -> bool:
        return "trainer" in self.checkpointables

    def start_new_run(self) -> None:
        """Put what an earlier run left in the output folder aside: nothing is of the run that begins."""
        aside = move_aside(Path(self.save_dir)) if self.save_to_disk else None
        if aside:
            self.logger.warning("%s: had an earlier run, which is in %s now", self.save_dir, aside)

    def release(self) -> None:
        """Let another training have the output folder."""
        unlock_folder(Path(self.save_dir))

    def check_disk_space(self, size: int, keep: int) -> None:
        """Check that there is room for the checkpoints to come.

        Args:
            size: bytes of one.
            keep: periodic ones that stay, beside the best and the last.

        Raises:
            InputError: there is not even room for one.
        """
        if self.save_to_disk:
            there = sum(1 for _ in Path(self.save_dir).glob("model_*.pth"))
            check_disk_space(Path(self.save_dir), size, max(1, keep + 2 - there))

    def save(self, name: str, resumable: bool = True, **kwargs: Any) -> None:
        """Write `{name}.pth`.

        Args:
            name: file name without its ending.
            resumable: whether it becomes the one to resume from.
            kwargs: further plain data to save.
        """
        if not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **self._metadata, **kwargs}
        data |= {key: item.state_dict() for key, item in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", target)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                saving = DeferredErrorFile(file)
                torch.save(data, cast(IO[bytes], saving))
                saving.finish()

        _replace(target, write, tensor_bytes(data))
        if resumable:
            self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from, atomically.

        Args:
            last_filename_basename: a file name in the output folder.
        """
        target = Path(self.save_dir) / "last_checkpoint"
        if target.is_dir():
            target.rename(unused_path(target.with_name("last_checkpoint_folder")))
        _replace(target, lambda temporary: temporary.write_text(last_filename_basename))

    def resume(self) -> bool:
        """Load the newest checkpoint of the output folder that fits; False if there is none.

        All processes take the same one: what one of them cannot load is passed over by all.

        Raises:
            InputError: there are checkpoints, but none fits.
        """
        refused: list[str] = []
        candidates = self._candidates() if comm.is_main_process() else iter(())
        while path := comm.all_gather(next(candidates, None))[0]:
            error = self._try(path)
            errors = [said for said in comm.all_gather(error) if said]
            if not errors:
                for said in refused:
                    self.logger.warning("%s; %s is taken instead", said, path)
                return True
            refused += errors[:1]
        if refused:
            raise InputError(
                f"{refused[0]} (and there is no other one in {self.save_dir} that fits; remove --resume to begin anew)"
            )
        return False

    def _try(self, path: Path) -> str:
        """Load a checkpoint; why that is not possible, or ""."""
        try:
            self.load(str(path))
        except InputError as error:
            return str(error)
        return ""

    def _candidates(self) -> Iterator[Path]:
        """The checkpoint to resume from, then the others, newest first."""
        folder = Path(self.save_dir)
        files = {path.name: path for path in folder.glob("*.pth") if path.is_file()}
        tag = folder / "last_checkpoint"
        last = files.pop(_tagged(tag), None)
        if last:
            yield last
        elif tag.exists():
            self.logger.warning("%s: names no checkpoint that is there; trying the newest one", tag)
        # Not the best one: it is saved when it is judged, perhaps after its step.
        steps = [path for name, path in files.items() if STEP_FILE.fullmatch(name) or name == "model_final.pth"]
        yield from sorted(steps, key=_iteration, reverse=True)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint, or nothing.

        Args:
            path: the file.
            checkpointables: see `Checkpointer`.

        Returns:
            what it holds besides.

        Raises:
            InputError: it is damaged, would run code, or is of another model or of other classes.
        """
        try:
            return super().load(path, checkpointables)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise DamagedFileError(
                f"{path}: holds no state of such a training ({type(error).__name__}: {error}); "
                "give a checkpoint that a training with this config wrote"
            ) from error

    def _load_file(self, f: str) -> dict[str, Any]:
        self._source = f
        content = load_checkpoint(f)
        if not self.checkpointables.keys() <= content.keys():
            raise InputError(f"{f}: holds a model, but no training to go on with; begin one with it as MODEL.WEIGHTS")
        check_model_classes(ClassNames.from_checkpoint(content), self._classes, f)
        return content

    def _load_model(self, checkpoint: Any) -> None:
        weights = checkpoint.pop("model")
        check_compatible(self.model.student, select_weights(weights), self._source, exactly=True)
        wanted = self.model.state_dict()
        if not self._trains:
            # What a framework keeps of the training images is of no use but to train on.
            wanted, weights = _evaluated(wanted), _evaluated(weights)
        wrong = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
        wrong += [key for key in weights if key not in wanted]
        if wrong:
            raise InputError(
                f"{self._source}: the checkpoint is of another model, {len(wrong)} keys differ ({wrong[0]}, ...); "
                "use the config it was trained with, or train in another OUTPUT_DIR"
            )
        self.model.load_state_dict(weights, strict=self._trains)


def _evaluated(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key.partition(".")[0] in (*MODEL_NAMES, "weigher")}


def load_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU.

    Args:
        path: a file that `FrameworkCheckpointer` or an export wrote.

    Raises:
        InputError: there is no such file, it cannot be read, would run code when loaded, or is no checkpoint of this
            project, or one whose model this version would compute otherwise.
    """
    content = read_weight_file(path)
    if not is_checkpoint(content):
        raise InputError(f"{path}: is no checkpoint of this project; give a model_*.pth that a training wrote")
    check_metadata(content, path)
    _check_resize(content["config"], path)
    return {**content, "model": extract_state_dict(content["model"], path)}


def _check_resize(config: str, path: str) -> None:
    """Refuse a model of a version whose decoder resized ASPP's output in one way whatever the config said."""
    head = read_config(config, path).get("MODEL", CfgNode()).get("SEM_SEG_HEAD", CfgNode())
    # ASPP_POOL_NORM is as old as the decoder's regard for ALIGN_CORNERS.
    if head.get("ALIGN_CORNERS") and "ASPP_POOL_NORM" not in head:
        raise InputError(
            f"{path}: its model resized ASPP's output without MODEL.SEM_SEG_HEAD.ALIGN_CORNERS, which is True; this "
            "version's would compute other logits of its weights: train it anew"
        )


def load_initial_weights(model: nn.Module, cfg: Any) -> None:
    """Give a model its first weights, in place.

    Args:
        model: the student.
        cfg: MODEL.WEIGHTS is a checkpoint of this project for the whole model, else whatever `load_backbone_weights`
            takes. With MODEL.MATCH_CLASSES the checkpoint's classes may be others than the run's.

    Raises:
        InputError: it cannot be read or does not fit.
    """
    path = cfg.MODEL.WEIGHTS
    if not path:
        return
    content = read_weight_file(path)
    weights = extract_state_dict(content, path)
    if is_checkpoint(content):
        check_metadata(content, path)
        trained, own = ClassNames.from_checkpoint(content), get_run_classes(cfg)
        if not cfg.MODEL.MATCH_CLASSES:
            check_model_classes(trained, own, path)
        elif trained.difference(own):
            weights = match_classes(select_weights(weights), model, trained, own)
        load_model_state(model, weights, path)
    else:
        load_backbone_state(model.get_submodule("backbone"), weights, path)


def load_model(path: str, which: str = "", device: str = "cpu") -> tuple[UnifiedSegDet, dict[str, Any]]:
    """Rebuild a trained model from a checkpoint alone.

    Args:
        path: the checkpoint.
        which: "teacher" or "student"; by default the one to use, the teacher where there is one.
        device: where to put the model.

    Returns:
        the model in evaluation mode, and what the checkpoint says of itself (see `build_metadata`), with its config as
            a CfgNode.

    Raises:
        InputError: the file is no checkpoint of this project, or has no such model.
    """
    checkpoint = load_checkpoint(path)
    weights = checkpoint["model"]
    if which:
        weights = weights_of(which, weights)
        if not weights:
            raise InputError(f"{path}: holds no {which} beside another model; name none to take what is there")
    metadata = {key: checkpoint[key] for key in METADATA_KEYS}
    metadata["config"] = restore_cfg(metadata["config"], path)
    metadata["config"].MODEL.DEVICE = device
    model = build_model(metadata["config"])
    load_model_state(model, weights, path)
    return model.eval(), metadata


def tensor_bytes(data: Any) -> int:
    """Bytes of the tensors in nested dicts and lists, which is about what `torch.save` makes of them."""
    if isinstance(data, torch.Tensor):
        return data.untyped_storage().nbytes()
    if isinstance(data, dict):
        return sum(map(tensor_bytes, data.values()))
    return sum(map(tensor_bytes, data)) if isinstance(data, list | tuple) else 0


def _replace(target: Path, write: Callable[[Path], object], size: int = 0) -> None:
    """As `replace_file`, but what a killed process leaves has a name by which the next training clears it away."""
    temporary = target.with_suffix(".tmp")
    with clear_write_errors(target, size):
        try:
            write(temporary)
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)  # the next save may need its room
            raise


def _tagged(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _iteration(path: Path) -> float:
    """The step after which a checkpoint was saved; of one that cannot be read it is taken to be the last."""
    if step := STEP_FILE.fullmatch(path.name):
        return int(step[1])
    try:
        return int(load_checkpoint(str(path)).get("iteration", -1))
    except (InputError, TypeError, ValueError):
        return float("inf")
