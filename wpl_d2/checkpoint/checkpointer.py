"""Saving and loading checkpoints: written atomically, complete for an exact resume, read without executing code."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import IO, Any, cast

import torch
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from ..frameworks import Framework, build_framework
from ..modeling.weight_files import DamagedFileError
from ..modeling.weights import MODEL_NAMES, check_compatible, select_weights
from ..utils.buckets import Bucket
from ..utils.errors import InputError
from ..utils.files import DeferredErrorFile, clear_write_errors, unused_path
from .classes import ClassNames, check_model_classes, get_run_classes
from .loading import load_checkpoint
from .metadata import build_metadata
from .run_folder import check_disk_space, lock_folder, move_aside, unlock_folder

logger = logging.getLogger(__name__)

_TAG = "last_checkpoint"
STEP_FILE = re.compile(r"model_(\d{7})\.pth")


class FrameworkCheckpointer(Checkpointer):
    """Saves and loads a framework with its trainer.

    A file is written under a temporary name, flushed to the disk and renamed, so that a killed process leaves the
    previous checkpoint intact. `load` accepts tensors and plain containers only, and requires every key.
    """

    def __init__(self, model: torch.nn.Module, cfg: Any, **checkpointables: Any) -> None:
        """Save to (by the main process only) and load from `cfg.OUTPUT_DIR`.

        Args:
            model: the framework, inside DDP or not.
            cfg: the run's config, saved with the weights.
            checkpointables: other objects with a state, such as `trainer`, which locks the folder.
        """
        super().__init__(model, cfg.OUTPUT_DIR, save_to_disk=comm.is_main_process(), **checkpointables)
        self._metadata = build_metadata(cfg)
        self._classes = get_run_classes(cfg)
        self._source = ""
        self._copied = False  # whether the last checkpoint is in the bucket
        self._bucket = Bucket(cfg.SOLVER.CHECKPOINT_BUCKET) if cfg.SOLVER.CHECKPOINT_BUCKET and self._trains else None
        # An evaluation must not remove the temporary files of a training beside it.
        if self.save_to_disk and self._trains:
            lock_folder(Path(self.save_dir))
            for stale in Path(self.save_dir).glob("*.tmp"):
                stale.unlink()

    @property
    def _trains(self) -> bool:
        return "trainer" in self.checkpointables

    def start_new_run(self) -> None:
        """Move the files of an earlier run in the output folder aside, into a subfolder."""
        aside = move_aside(Path(self.save_dir)) if self.save_to_disk else None
        if self._bucket and self.save_to_disk and self._bucket.exists(_TAG):
            self._bucket.remove([PurePath(_TAG)])  # it leads to the earlier run
        if aside:
            self.logger.warning("%s: had an earlier run, which is in %s now", self.save_dir, aside)

    def unlock(self) -> None:
        """Unlock the output folder for other trainings."""
        unlock_folder(Path(self.save_dir))

    def check_disk_space(self, size: int, keep: int) -> None:
        """Check that the disk has space for the checkpoints to come.

        Args:
            size: bytes per checkpoint.
            keep: periodic checkpoints that are kept, beside the best and the last.

        Raises:
            InputError: there is not even space for one.
        """
        if self.save_to_disk:
            existing = sum(1 for _ in Path(self.save_dir).glob("model_*.pth"))
            check_disk_space(Path(self.save_dir), size, max(1, keep + 2 - existing))

    def save(self, name: str, resumable: bool = True, **kwargs: Any) -> None:
        """Write `{name}.pth`.

        Args:
            name: file name without suffix.
            resumable: whether `resume` starts from it.
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
        self._copied = self._copy(target)
        if resumable:
            self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the checkpoint to resume from, atomically.

        Args:
            last_filename_basename: file name in the output folder.
        """
        target = Path(self.save_dir) / _TAG
        if target.is_dir():
            target.rename(unused_path(target.with_name("last_checkpoint_folder")))
        _replace(target, lambda temporary: temporary.write_text(last_filename_basename))
        if self._copied:  # else it would lead to a file that is not there
            self._copy(target)

    def remove(self, path: Path) -> None:
        """Remove a checkpoint, also from the bucket."""
        path.unlink(missing_ok=True)
        if self._bucket and self._copied:
            self._try_bucket(lambda bucket: bucket.remove([PurePath(path.name)]))

    def _copy(self, path: Path) -> bool:
        return self._try_bucket(lambda bucket: bucket.put(path.parent, [PurePath(path.name)]))

    def _try_bucket(self, act: Callable[[Bucket], None]) -> bool:
        """Do something to the bucket. Where it cannot be reached the training goes on: the disk's files are whole."""
        if self._bucket is None:
            return False
        try:
            act(self._bucket)
            return True
        except InputError as error:
            self.logger.warning("SOLVER.CHECKPOINT_BUCKET: %s", error)
            return False

    def _fetch(self) -> None:
        """Bring the checkpoint to go on from to the machines that lack it: the main process's, else the bucket's."""
        if self._bucket is None:
            return
        folder, newest = Path(self.save_dir), ""
        if comm.is_main_process():
            newest = next((path.name for path in checkpoints_of(folder)), "")
            if not newest:
                self._bucket.fetch([PurePath(_TAG)], folder)
                newest = _read_tag(folder / _TAG)
        newest = comm.all_gather(newest)[0]
        if newest and comm.get_local_rank() == 0 and not (folder / newest).is_file():
            self._bucket.fetch([PurePath(newest)], folder)
            if not (folder / newest).is_file():
                raise InputError(
                    f"SOLVER.CHECKPOINT_BUCKET: {newest} is not in {self._bucket.url}; remove its last_checkpoint to "
                    "begin anew, or put the file there"
                )
        comm.synchronize()

    def resume(self) -> bool:
        """Load the newest checkpoint of the output folder that fits, the same in all processes; False if there is none.

        Raises:
            InputError: there are checkpoints, but none fits.
        """
        self._fetch()
        rejected: list[str] = []
        candidates = checkpoints_of(Path(self.save_dir)) if comm.is_main_process() else iter(())
        while path := comm.all_gather(next(candidates, None))[0]:
            errors = [error for error in comm.all_gather(self._try_load(path)) if error]
            if not errors:
                for error in rejected:
                    self.logger.warning("%s; %s is taken instead", error, path)
                return True
            rejected += errors[:1]
        if rejected:
            raise InputError(
                f"{rejected[0]} (and there is no other one in {self.save_dir} that fits; remove --resume to begin anew)"
            )
        return False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the newest checkpoint of the output folder with `resume`, else the one at `path`.

        Raises:
            InputError: there is no such checkpoint, or none that fits.
        """
        if resume:
            if not self.resume():
                raise InputError(f"OUTPUT_DIR: no checkpoint in {self.save_dir}; train first, or give MODEL.WEIGHTS")
            return {}
        if Path(path).suffix != ".pth" or not Path(path).is_file():
            raise InputError(
                f"MODEL.WEIGHTS: {path or 'empty'} is not a checkpoint of a training; "
                "give its model_final.pth, or --resume for the newest of OUTPUT_DIR"
            )
        return self.load(path)

    def _try_load(self, path: Path) -> str:
        """Load a checkpoint, and return the error, or ""."""
        try:
            self.load(str(path))
        except InputError as error:
            return str(error)
        return ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint completely, or fail.

        Args:
            path: the file.
            checkpointables: see `Checkpointer`.

        Returns:
            the rest of its content.

        Raises:
            InputError: it is damaged, would execute code, or has another model or other classes.
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
            # What a framework remembers of its training images serves training only.
            wanted, weights = _for_evaluation(wanted), _for_evaluation(weights)
        wrong = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
        wrong += [key for key in weights if key not in wanted]
        if wrong:
            raise InputError(
                f"{self._source}: the checkpoint is of another model, {len(wrong)} keys differ ({wrong[0]}, ...); "
                "use the config it was trained with, or train in another OUTPUT_DIR"
            )
        self.model.load_state_dict(weights, strict=self._trains)


def load_framework(cfg: Any, resume: bool = False) -> Framework:
    """Load a trained framework in evaluation mode: the newest checkpoint with `resume`, else MODEL.WEIGHTS.

    Args:
        cfg: the config of the training that wrote the checkpoint.
        resume: the command line's `--resume`.

    Raises:
        InputError: there is no such checkpoint, or it has another model.
    """
    framework = build_framework(cfg)
    FrameworkCheckpointer(framework, cfg).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    return framework.eval()


def checkpoints_of(folder: Path) -> Iterator[Path]:
    """The checkpoint that a run's `last_checkpoint` names, then its others, newest first."""
    files = {path.name: path for path in folder.glob("*.pth") if path.is_file()}
    tag = folder / _TAG
    last = files.pop(_read_tag(tag), None)
    if last:
        yield last
    elif tag.exists():
        logger.warning("%s: names no checkpoint that is there; trying the newest one", tag)
    # Without the best one, which may be saved by an evaluation after its step.
    steps = [path for name, path in files.items() if STEP_FILE.fullmatch(name) or name == "model_final.pth"]
    yield from sorted(steps, key=_iteration, reverse=True)


def _for_evaluation(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key.partition(".")[0] in (*MODEL_NAMES, "weigher")}


def tensor_bytes(data: Any) -> int:
    """Bytes of all tensors in nested dicts and lists: about the size of the file that `torch.save` makes."""
    if isinstance(data, torch.Tensor):
        return data.untyped_storage().nbytes()
    if isinstance(data, dict):
        return sum(map(tensor_bytes, data.values()))
    return sum(map(tensor_bytes, data)) if isinstance(data, list | tuple) else 0


def _replace(target: Path, write: Callable[[Path], object], size: int = 0) -> None:
    """`replace_file` with a temporary name that the next training removes, should this process be killed."""
    temporary = target.with_suffix(".tmp")
    with clear_write_errors(target, size):
        try:
            write(temporary)
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)  # the next save may need the space
            raise


def _read_tag(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _iteration(path: Path) -> float:
    """The step after which a checkpoint was saved; infinity if it cannot be read."""
    if step := STEP_FILE.fullmatch(path.name):
        return int(step[1])
    try:
        return int(load_checkpoint(str(path)).get("iteration", -1))
    except (InputError, TypeError, ValueError):
        return float("inf")
