"""Trainings at some of their steps, and what they make of images that have masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context
from torch import Tensor

from wpl_d2.checkpoint import load_framework
from wpl_d2.checkpoint.checkpointer import STEP_FILE
from wpl_d2.checkpoint.metadata import restore_cfg
from wpl_d2.data import EvalDataset, register_part, setup_datasets
from wpl_d2.data.datasets.setup import check_registered
from wpl_d2.data.mappers import read_labels
from wpl_d2.data.pixel_values import RGB
from wpl_d2.evaluation import filled_weigher
from wpl_d2.frameworks import Framework
from wpl_d2.frameworks.pseudo_labels import build_refinement, gather_evidence, make_pseudo_labels, predict
from wpl_d2.modeling import UnifiedSegDet
from wpl_d2.report.run import Run, read_run
from wpl_d2.structures import IGNORE, PseudoLabels
from wpl_d2.utils.errors import InputError, suggest
from wpl_d2.visualization.draw import Picture, render
from wpl_d2.weighting import PixelWeigher


@dataclass(frozen=True)
class Labeled:
    """An image with its true classes, and what a training's pseudo-labeler makes of it.

    Attributes:
        name: of the image.
        image: (channels, H, W) in 0..255.
        picture: (3, H, W) uint8, of it.
        target: (1, H, W) int64 class ids or `IGNORE`.
        pseudo: (1, H, W), with weights.
        embedding: (1, D, h, w) float32.
    """

    name: str
    image: Tensor
    picture: Picture
    target: Tensor
    pseudo: PseudoLabels
    embedding: Tensor

    @property
    def judged(self) -> Tensor:
        """(1, H, W) bool, the pixels with a true class and a label."""
        return (self.target != IGNORE) & (self.pseudo.labels != IGNORE)

    @property
    def right(self) -> Tensor:
        """(1, H, W) bool, where the label is true."""
        return self.judged & (self.pseudo.labels == self.target)


@dataclass(frozen=True)
class Snapshot:
    """A training after some of its steps.

    Attributes:
        run: its folder.
        step: the number of trained steps.
        file: the checkpoint.
        name: of the training among others.
    """

    run: Run
    step: int
    file: Path
    name: str

    @cached_property
    def cfg(self) -> CfgNode:
        """Its config, with its data sets registered."""
        cfg = restore_cfg(self.run.config, str(self.run.folder / "config.yaml"))
        cfg.MODEL.WEIGHTS = str(self.file)
        cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
        setup_datasets(cfg)
        return cfg

    @cached_property
    def framework(self) -> Framework:
        """The framework, in evaluation mode."""
        return load_framework(self.cfg)

    @property
    def model(self) -> UnifiedSegDet:
        """The model that is evaluated."""
        return next(iter(self.framework.eval_models().values()))

    @cached_property
    def weigher(self) -> PixelWeigher:
        """Its weigher; of a training without one, that of its config with a bank filled with labeled pixels."""
        return self.framework.weigher or filled_weigher(self.cfg, self.framework)

    @property
    def metadata(self) -> Any:
        """Detectron2's, of the labeled images: names and colors of the classes."""
        return MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0])

    def dataset(self, name: str = "", images: int | None = None, chosen: Sequence[str] = ()) -> EvalDataset:
        """A list of images with masks.

        Args:
            name: of a registered list; by default the first of DATASETS.TEST.
            images: a random part of so many images, always the same one; None: all.
            chosen: ids of images, in place of a random part.

        Raises:
            InputError: there is no such list, or it has no such image.
        """
        name = name or next(iter(self.cfg.DATASETS.TEST), "")
        if not name:
            raise InputError("--dataset: the run names none in DATASETS.TEST; give a list of images with masks")
        check_registered("--dataset", name)
        if not chosen:
            return EvalDataset(self.cfg, name=register_part(name, images) if images else name, key="--dataset")
        dataset = EvalDataset(self.cfg, name=name, key="--dataset")
        known = {str(record["image_id"]): record for record in dataset.records}
        for image in chosen:
            if image not in known:
                raise InputError(f"--choose: {name} has no image {image!r}; {suggest(image, known)}")
        dataset.records = [known[image] for image in chosen]
        return dataset

    @torch.no_grad()
    def label(self, dataset: EvalDataset) -> Iterator[Labeled]:
        """The labels of a list's images.

        Raises:
            InputError: the weigher needs boxes that the model does not find, or an image cannot be judged.
        """
        if "boxes" in self.weigher.score_needs and not self.model.has_detector:
            raise InputError(f"{self.run.folder}: its weights need boxes, which were cached for training images alone")
        refinement, classes = build_refinement(self.cfg), len(dataset.classes)
        with inference_context(self.model), inference_context(self.weigher):
            for (item,) in dataset.loader():
                size = (item["image"].shape[-2], item["image"].shape[-1])
                target = torch.tensor(read_labels(item, size, classes), device=self.model.device)[None]
                prediction = predict(self.model, self.model.normalize(item["image"][None]))
                found = self.model.detect(prediction.features, [size]) if self.model.has_detector else None
                evidence = gather_evidence(self.model, prediction, detections=found)
                pseudo = make_pseudo_labels(evidence, refinement, self.weigher)
                name = str(item["image_id"])
                picture = render(item["image"], item.get("layout", RGB))
                yield Labeled(name, item["image"], picture, target.long(), pseudo, evidence.embedding.float())


def read_trainings(folders: Sequence[Path]) -> list[list[Snapshot]]:
    """The snapshots of trainings, named by the last two folders of their paths, or as many as tell them apart.

    Raises:
        InputError: a folder is no run, or holds no checkpoint, or is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError(f"RUN: {', '.join(map(str, folders))} names a folder twice; give each once")
    depth = next(n for n in range(2, max(map(len, parts)) + 1) if len({own[-n:] for own in parts}) == len(parts))
    return [_snapshots(folder, "/".join(own[-depth:])) for folder, own in zip(folders, parts, strict=True)]


def _snapshots(folder: Path, name: str) -> list[Snapshot]:
    """A training at each step of which it kept a checkpoint, the last one at the end."""
    run = read_run(folder)
    found = {
        int(match[1]) + 1: file for file in folder.glob("model_*.pth") if (match := STEP_FILE.fullmatch(file.name))
    }
    final = folder / "model_final.pth"
    if final.is_file():
        found[run.steps] = final
    if not found:
        raise InputError(f"{folder}: holds no checkpoint; give the folder of a run that kept some")
    return [Snapshot(run, step, found[step], name) for step in sorted(found)]


def class_id(snapshot: Snapshot, name: str) -> int:
    """The id of a class, by its name.

    Raises:
        InputError: there is none of that name.
    """
    names: Sequence[str] = snapshot.metadata.stuff_classes
    if name not in names:
        raise InputError(f"--classes: {name!r} is no class; valid: {', '.join(names)}")
    return list(names).index(name)
