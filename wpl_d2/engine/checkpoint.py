"""Checkpoints that are whole or absent, hold everything that shapes a run, and load without running code."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from ..config import get_cfg
from ..errors import InputError
from ..modeling import UnifiedSegDet, build_model, load_backbone_weights, load_model_weights
from ..modeling.weights import check_fits, own_weights

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
        self._about = describe_run(cfg)
        if self.save_to_disk:
            for stale in Path(self.save_dir).glob("*.tmp"):
                stale.unlink()

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{name}.pth` and make it the one to resume from.

        Args:
            name: file name without its ending.
            kwargs: further plain data to save.
        """
        if not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **self._about, **kwargs}
        data |= {key: item.state_dict() for key, item in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", target)
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from, atomically.

        Args:
            last_filename_basename: a file name in the output folder.
        """
        temporary = Path(self.save_dir) / "last_checkpoint.tmp"
        temporary.write_text(last_filename_basename)
        os.replace(temporary, Path(self.save_dir) / "last_checkpoint")

    def resume(self) -> bool:
        """Load the newest checkpoint of the output folder that can be read; False if there is none.

        Raises:
            InputError: there are checkpoints, but none can be read.
        """
        candidates = self._candidates()
        for path in candidates:
            try:
                self.load(str(path))
                return True
            except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
                if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
                    raise
                self.logger.warning("%s cannot be read (%s); trying the one before", path, error)
        if candidates:
            raise InputError(f"{self.save_dir}: no checkpoint can be read; remove --resume to start anew")
        return False

    def _candidates(self) -> list[Path]:
        tagged = [Path(self.get_checkpoint_file())] if self.has_checkpoint() else []
        steps = sorted(
            (p for p in Path(self.save_dir).glob("model_*.pth") if STEP_FILE.fullmatch(p.name)), reverse=True
        )
        return tagged + [path for path in steps if path not in tagged]

    def _load_file(self, f: str) -> dict[str, Any]:
        return load_checkpoint(f)

    def _load_model(self, checkpoint: Any) -> None:
        weights = checkpoint.pop("model")
        check_fits(self.model.student, own_weights(weights))
        wanted = self.model.state_dict()
        wrong = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
        wrong += [key for key in weights if key not in wanted]
        if wrong:
            raise InputError(
                f"{self.save_dir}: the checkpoint is of another model, {len(wrong)} keys differ ({wrong[0]}, ...); "
                "resume with the config that began the run, or start in another OUTPUT_DIR"
            )
        self.model.load_state_dict(weights)


def load_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU.

    Args:
        path: a file that `FrameworkCheckpointer` wrote.

    Raises:
        InputError: the file would run code when loaded.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise
        raise InputError(
            f"{path}: holds {found[1]}, which is not plain data; load it where you trust it and save tensors alone"
        ) from error


def load_initial_weights(model: UnifiedSegDet, path: str) -> None:
    """Give a model its first weights, in place.

    Args:
        model: the student.
        path: a checkpoint of this project for the whole model, else whatever `load_backbone_weights` takes.
    """
    is_checkpoint = path.endswith(".pth") and Path(path).is_file() and "config" in load_checkpoint(path)
    if is_checkpoint:
        load_model_weights(model, path)
    else:
        load_backbone_weights(model.backbone, path)


def describe_run(cfg: Any) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain data: its config, class names, colours and preprocessing."""
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    metadata = MetadataCatalog.get(names[0]) if names else None
    return {
        "config": cfg.dump(),
        "classes": list(metadata.get("stuff_classes", [])) if metadata else [],
        "colors": [list(color) for color in metadata.get("stuff_colors", [])] if metadata else [],
        "objects": list(cfg.MODEL.DETECTOR.CLASSES),
        "preprocessing": {
            "format": cfg.INPUT.FORMAT,
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
        },
    }


def load_model(path: str, which: str = "", device: str = "cpu") -> tuple[UnifiedSegDet, dict[str, Any]]:
    """Rebuild a trained model from a checkpoint alone.

    Args:
        path: the checkpoint.
        which: "teacher" or "student"; by default the one to use, the teacher where there is one.
        device: where to put the model.

    Returns:
        the model in evaluation mode, and what the checkpoint says of itself (see `describe_run`), with its config as
            a CfgNode.

    Raises:
        InputError: the file is no checkpoint of this project, or has no such model.
    """
    checkpoint = load_checkpoint(path)
    if "config" not in checkpoint:
        raise InputError(f"{path}: is no checkpoint of this project; give a model_*.pth that a training wrote")
    cfg = get_cfg()
    cfg.merge_from_other_cfg(type(cfg).load_cfg(checkpoint["config"]))
    cfg.MODEL.DEVICE = device
    weights = checkpoint.pop("model")
    names = [which] if which else ["teacher", "student"]
    for name in names:
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        if own:
            model = build_model(cfg)
            model.load_state_dict(own)
            about = {key: checkpoint[key] for key in ("classes", "colors", "objects", "preprocessing")}
            return model.eval(), {"config": cfg, **about}
    raise InputError(f"{path}: holds no {' or '.join(names)}")
