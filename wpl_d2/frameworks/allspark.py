"""AllSpark: labeled images are rebuilt from the channels of unlabeled ones, those of a memory too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..modeling import AllSparkHead
from ..utils.comm import all_gather_rows
from ..weighting import MemoryBank
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term, split
from .pseudo_labels import Prediction, evaluation_mode, predict


@FRAMEWORK_REGISTRY.register()
class AllSpark(Framework):
    """AllSpark (Wang et al., CVPR 2024): cross-attention between the channels of labeled and of unlabeled images.

    L = (Lx + alpha * Lu) / 2: Lx on strong views of labeled images, Lu the mean of W * CE over the valid pixels of weak
    views of unlabeled ones, in one forward. The student labels these first, in evaluation mode, without a threshold
    (FRAMEWORK.THRESHOLD 0). `AllSparkHead` rebuilds labeled images from the channels of all unlabeled ones of the
    process's batch and, from `memory_after` semi-supervised steps on, from the memory: for each class the latest
    channels, as many as the last feature map has, in the beginning random ones. A channel of an unlabeled image joins
    the class whose map of the image's logits it resembles most (`channel_classes`), before labeled images are rebuilt.

    Differences to the published code, in brackets: padding does not train (does), is always at the right and the bottom
    (mirrored with the image) and has the color MODEL.PIXEL_MEAN (0 before normalization); crops need not be square;
    the memory keeps the channels of all processes' images (of the first one's alone, since DDP copies its buffers to
    the others), to which each adds its own in its step; a prediction depends on its image alone (on all of a batch,
    which in the published evaluation has one image; labels for training depend on their batch here too); and the
    learning rate is that of its own step (of the step before).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`, and the channels that labeled
    images are rebuilt from; the memory has those of the step's earlier micro-batches, too.

    Attributes:
        memory: its `ring`, (C, D, N) float32, has the channels of each class.

    Args:
        memory: for as many channels of a class as the last feature map has, each of as many numbers as it has cells.
        memory_after: see above.
        framework: the arguments of `Framework`.
    """

    strong_views = 0
    strong_labeled = True
    sem_seg_head = "AllSparkHead"

    @configurable
    def __init__(self, *, memory: MemoryBank, memory_after: int, **framework: Any) -> None:
        super().__init__(**framework)
        nn.init.normal_(memory.ring)
        self.memory = memory
        self.memory_after = memory_after
        self.trains_in_phases = self.burn_in > 0
        self._staged: list[tuple[Tensor, Tensor]] = []

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        student = arguments["student"]
        last = student.backbone.output_shape()[student.sem_seg_head.in_features[-1]]
        height, width = (-(-side // last.stride) for side in cfg.INPUT.CROP_SIZE)
        memory = MemoryBank(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, height * width, last.channels)
        return arguments | {"memory": memory, "memory_after": cfg.FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS}

    @property
    def head(self) -> AllSparkHead:
        """The student's."""
        head = self.student.sem_seg_head
        assert isinstance(head, AllSparkHead)
        return head

    @torch.no_grad()
    @override
    def label(self, items: Items) -> Prediction:
        """The student's prediction in evaluation mode, each image rebuilt from the channels of all."""
        images = self.images(items, "image")
        with evaluation_mode(self.student):
            features = self.student.encode(images)
            maps, channels = self.head.enter(features)
            last = self.head.rebuild(maps, channels, sources=channels, labeled=len(items))
            return Prediction(images, features, self.head.classify(self.head.merge(features, last), images.shape[-2:]))

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = batch["labeled"], self.unlabeled(batch)
        strong = self.student.normalize(self.make_strong_views(labeled)[:, 0])
        if not items:
            _, features, output = predict(self.student, strong)
            return self.supervised_losses(labeled, features, output, coefficient=0.5)
        prediction = self.label(items)
        features = self.student.encode(torch.cat([strong, prediction.images]))
        maps, channels = self.head.enter(features)
        sources = self._sources(channels[len(labeled) :], prediction.output.logits, maps.shape[-2:])
        last = self.head.rebuild(maps, channels, sources, len(labeled))
        output = self.head.classify(self.head.merge(features, last), strong.shape[-2:])
        own, weak = split(output, len(labeled), len(items))
        terms, losses = self.supervised_losses(labeled, features, own, coefficient=0.5)
        # Behind the forward: the weigher draws, and so would change what dropout drops.
        pseudo = self.make_pseudo_labels(items, prediction)
        self.stage_strong(weak.embedding, pseudo)
        terms.append(consistency_term("loss_unsup", weak.logits, pseudo, self.threshold, self.alpha / 2))
        return terms, losses

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        """Update the memory too. A collective call."""
        super().after_step()
        if self._staged:
            channels, classes = (torch.cat(parts) for parts in zip(*self._staged, strict=True))
            self._staged = []
            self.memory.push(all_gather_rows(channels), all_gather_rows(classes))

    def _sources(self, channels: Tensor, logits: Tensor, cells: torch.Size) -> Tensor:
        """What labeled images are rebuilt from, (S, D, N), when `channels` (B, D, N) have joined the memory."""
        classes = channel_classes(channels, logits, cells, self.head.align_corners)
        self._staged.append((channels.detach().float().flatten(0, 1), classes.flatten()))
        if self.iteration < self.burn_in + self.memory_after:
            return channels
        memory = deepcopy(self.memory)
        for staged in self._staged:
            memory.push(*staged)
        return memory.ring


@torch.no_grad()
def channel_classes(channels: Tensor, logits: Tensor, cells: torch.Size, align_corners: bool) -> Tensor:
    """The class of each channel: that whose map of logits has the highest cosine with it.

    Args:
        channels: (B, D, N) float, of unlabeled images.
        logits: (B, C, H, W) float, of the same images.
        cells: (h, w), N of them, to which the logits are resized.
        align_corners: of the bilinear resize.

    Returns:
        (B, D) int64.
    """
    # Autocast would round the cosines to 8 bits.
    with torch.autocast(channels.device.type, enabled=False):
        maps = F.interpolate(logits.float(), cells, mode="bilinear", align_corners=align_corners).flatten(2)
        return (F.normalize(maps, dim=2) @ F.normalize(channels.float(), dim=2).mT).argmax(dim=1)
