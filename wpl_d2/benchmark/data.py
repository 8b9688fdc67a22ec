"""Samples a second for a core, beside the operations of UniMatch's own loader."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

from ..data import LabeledMapper, UnlabeledMapper
from ..data.loader import labeled_records, unlabeled_records

_ROUNDS = 5


def compare_samples(cfg: CfgNode, samples: int) -> dict[str, float]:
    """Seconds of CPU for a labeled and an unlabeled sample of a config, and for those of UniMatch's recipe.

    Reading a file is part of it, waiting for a disk is not.

    Args:
        cfg: complete, with its data sets registered.
        samples: of each kind in each of five rounds, in which ours and the published ones take turns.

    Returns:
        for "labeled" and "unlabeled": `KIND_sample_s`, `KIND_samples_per_core_s`, `published_KIND_sample_s` and
        `KIND_to_published`.
    """
    published = PublishedSamples(cfg)
    kinds: dict[str, tuple[list[dict[str, Any]], Callable[[Any], Any], Callable[[Any], Any]]] = {
        "labeled": (labeled_records(cfg), LabeledMapper(cfg), published.labeled),
        "unlabeled": (unlabeled_records(cfg), UnlabeledMapper(cfg), published.unlabeled),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's worker
    results: dict[str, float] = {}
    for kind, (records, ours, theirs) in kinds.items():
        endless = cycle(records)
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(_ROUNDS):
            some = list(islice(endless, samples))
            times["theirs"].append(_cpu_time(theirs, some))
            times["ours"].append(_cpu_time(ours, some))
        mine, other = (statistics.median(values) for values in times.values())
        results |= {
            f"{kind}_sample_s": mine,
            f"{kind}_samples_per_core_s": 1 / mine,
            f"published_{kind}_sample_s": other,
            f"{kind}_to_published": statistics.median(
                ours / theirs for ours, theirs in zip(times["ours"], times["theirs"], strict=True)
            ),
        }
    torch.set_num_threads(threads)
    return results


def _cpu_time(make: Callable[[Any], Any], records: list[dict[str, Any]]) -> float:
    """Seconds of this process's CPU for a sample."""
    start = time.process_time()
    for record in records:
        make(record)
    return (time.process_time() - start) / len(records)


class PublishedSamples:
    """UniMatch's samples by PIL and torchvision, as its authors make them: the baseline, which trains nothing."""

    def __init__(self, cfg: CfgNode) -> None:
        """Take crop, range of scales and strength of the colors from `INPUT`."""
        keys = cfg.INPUT
        self.size = keys.CROP_SIZE[0]
        self.scales = keys.SCALE_RANGE
        self.strong = keys.STRONG
        self.jitter = transforms.ColorJitter(*keys.STRONG.JITTER)
        self.gray = transforms.RandomGrayscale(keys.STRONG.GRAY_PROB)
        deviations = [value / 255 for value in cfg.MODEL.PIXEL_STD]
        self.normalize = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([value / 255 for value in cfg.MODEL.PIXEL_MEAN], deviations)]
        )

    def labeled(self, record: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """An image and its mask."""
        with Image.open(record["file_name"]) as image, Image.open(record["sem_seg_file_name"]) as mask:
            view, labels = self._view(image.convert("RGB"), mask)
        return self.normalize(view), torch.from_numpy(np.array(labels)).long()

    def unlabeled(self, record: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
        """A weak view and the strong ones, and where they are padding."""
        with Image.open(record["file_name"]) as image:
            view, padding = self._view(image.convert("RGB"), Image.new("L", image.size))
        strong = [self._strong(view.copy()) for _ in range(self.strong.VIEWS)]
        return [self.normalize(picture) for picture in (view, *strong)], torch.from_numpy(np.array(padding)).long()

    def _view(self, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        """All of both is resized, then cropped and mirrored."""
        factor, size = random.uniform(*self.scales), self.size
        width, height = (int(side * factor + 0.5) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
        everything = (0, 0, max(size, width), max(size, height))
        image, mask = image.crop(everything), mask.crop(everything)
        x, y = (random.randint(0, whole - size) for whole in everything[2:])
        image, mask = (picture.crop((x, y, x + size, y + size)) for picture in (image, mask))
        if random.random() < 0.5:
            image, mask = (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (image, mask))
        return image, mask

    def _strong(self, view: Image.Image) -> Image.Image:
        if random.random() < self.strong.JITTER_PROB:
            view = self.jitter(view)
        view = self.gray(view)
        if random.random() < self.strong.BLUR_PROB:
            view = view.filter(ImageFilter.GaussianBlur(random.uniform(*self.strong.BLUR_SIGMA)))
        return view
