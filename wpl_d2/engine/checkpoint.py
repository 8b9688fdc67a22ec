"""Checkpoints that are whole or absent, hold everything that shapes a run, and load without running code."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from ..config import get_cfg
from ..data.datasets.folder import class_looks
from ..errors import InputError
from ..modeling import UnifiedSegDet, build_model
from ..modeling.weight_files import DamagedFileError, read_file, state_dict_of
from ..modeling.weights import OWNERS, check_fits, fit_backbone, fit_model, own_weights, weights_of

logger = logging.getLogger(__name__)

ABOUT = ("config", "classes", "colors", "objects", "preprocessing")
"""What a checkpoint and every exported file say of themselves: see `describe_run`."""
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
        self._source = ""
        # Not in an evaluation beside a training that is about to rename its own.
        if self.save_to_disk and "trainer" in checkpointables:
            for stale in Path(self.save_dir).glob("*.tmp"):
                stale.unlink()

    def begin_anew(self) -> None:
        """Put the checkpoints of an earlier run in the output folder aside: none is one of the run that begins."""
        folder = Path(self.save_dir)
        files = [*folder.glob("model_*.pth"), *folder.glob("last_checkpoint")]
        if not self.save_to_disk or not files:
            return
        aside = folder / "earlier"
        aside.mkdir(exist_ok=True)
        for file in files:
            file.replace(aside / file.name)
        self.logger.warning("%s: had checkpoints of an earlier run; they are now in %s", folder, aside)

    def save(self, name: str, resumable: bool = True, **kwargs: Any) -> None:
        """Write `{name}.pth`.

        Args:
            name: file name without its ending.
            resumable: whether it becomes the one to resume from.
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
        if resumable:
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
            except DamagedFileError as error:
                self.logger.warning("%s; trying the one before", error)
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
        self._source = f
        return load_checkpoint(f)

    def _load_model(self, checkpoint: Any) -> None:
        weights = checkpoint.pop("model")
        check_fits(self.model.student, own_weights(weights), self._source, exactly=True)
        wanted = self.model.state_dict()
        if "trainer" not in self.checkpointables:
            # What a framework keeps of the training images is of no use but to train on.
            wanted, weights = _evaluated(wanted), _evaluated(weights)
        wrong = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
        wrong += [key for key in weights if key not in wanted]
        if wrong:
            raise InputError(
                f"{self._source}: the checkpoint is of another model, {len(wrong)} keys differ ({wrong[0]}, ...); "
                "use the config it was trained with, or train in another OUTPUT_DIR"
            )
        self.model.load_state_dict(weights, strict="trainer" in self.checkpointables)


def _evaluated(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key.partition(".")[0] in (*OWNERS, "weigher")}


def load_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU.

    Args:
        path: a file that `FrameworkCheckpointer` or an export wrote.

    Raises:
        InputError: there is no such file, it cannot be read, would run code when loaded, or is no checkpoint of this
            project, or one whose model this version would compute otherwise.
    """
    content = read_file(path)
    if not is_checkpoint(content):
        raise InputError(f"{path}: is no checkpoint of this project; give a model_*.pth that a training wrote")
    head = CfgNode.load_cfg(content["config"]).MODEL.SEM_SEG_HEAD
    if head.ALIGN_CORNERS and "ASPP_POOL_NORM" not in head:  # a key as old as the decoder's own regard for the former
        raise InputError(
            f"{path}: its model resized ASPP's output without MODEL.SEM_SEG_HEAD.ALIGN_CORNERS, which is True; this "
            "version's would compute other logits of its weights: train it anew"
        )
    return content


def is_checkpoint(content: Any) -> bool:
    """Whether what `read_file` returned holds a whole model with its config, rather than weights alone."""
    return isinstance(content, dict) and {"model", *ABOUT} <= content.keys()


def load_initial_weights(model: nn.Module, path: str) -> None:
    """Give a model its first weights, in place.

    Args:
        model: the student.
        path: a checkpoint of this project for the whole model, else whatever `load_backbone_weights` takes.
    """
    if not path:
        return
    content = read_file(path)
    weights = state_dict_of(content, path)
    if is_checkpoint(content):
        fit_model(model, weights, path)
    else:
        fit_backbone(model.get_submodule("backbone"), weights, path)


def describe_run(cfg: Any) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain data: its config, class names, colours and preprocessing.

    Args:
        cfg: complete; classes of a data set that other code registered without names or colours get some.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    known = MetadataCatalog.get(names[0]).as_dict() if names else {}
    classes, colors = class_looks(known, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    return {
        "config": cfg.dump(),
        "classes": classes,
        "colors": [list(color) for color in colors],
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
    weights = checkpoint["model"]
    if which:
        weights = weights_of(which, weights)
        if not weights:
            raise InputError(f"{path}: holds no {which} beside another model; name none to take what is there")
    about = {key: checkpoint[key] for key in ABOUT}
    about["config"] = restore_cfg(about["config"])
    about["config"].MODEL.DEVICE = device
    model = build_model(about["config"])
    fit_model(model, weights, path)
    return model.eval(), about


def restore_cfg(text: str) -> CfgNode:
    """The config in what a checkpoint or an exported file says of itself.

    Args:
        text: as `describe_run` dumped it, perhaps long ago: keys that are newer than it have their defaults, those that
            are no more are left out.
    """
    cfg = get_cfg()
    _merge_known(cfg, CfgNode.load_cfg(text))
    return cfg


def _merge_known(cfg: CfgNode, old: CfgNode, prefix: str = "") -> None:
    for key, value in old.items():
        if isinstance(value, CfgNode) and isinstance(cfg.get(key), CfgNode):
            _merge_known(cfg[key], value, f"{prefix}{key}.")
        elif key in cfg:
            cfg.merge_from_other_cfg(CfgNode({key: value}))
        else:
            logger.info("The key %s%s of the training is no more", prefix, key)
