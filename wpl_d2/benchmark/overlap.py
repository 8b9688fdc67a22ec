"""The paper's score beside a bare `topk`, and beside the straightforward way."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from ..weighting import rank_overlap
from .floor import now


def compare_overlap(cfg: Any, batch: Any, steps: int) -> dict[str, float]:
    """`rank_overlap` beside a bare `topk` of the same embedding, and beside the per-class loop at full resolution.

    Args:
        cfg: complete; sizes and WEIGHTING.K are its own.
        batch: whose number of unlabeled images counts.
        steps: measured calls, at least five.
    """
    images = len(batch["unlabeled"])
    height, width = cfg.INPUT.CROP_SIZE
    head = cfg.MODEL.SEM_SEG_HEAD
    generator = torch.Generator().manual_seed(0)
    cells = (-(-height // 4), -(-width // 4))
    embedding = torch.randn(images, head.CONVS_DIM, *cells, generator=generator).relu().to(cfg.MODEL.DEVICE)
    label = torch.randint(head.NUM_CLASSES, (images, height, width), generator=generator).to(cfg.MODEL.DEVICE)
    prototypes = torch.rand(head.NUM_CLASSES, head.CONVS_DIM, generator=generator).to(cfg.MODEL.DEVICE)
    k = cfg.WEIGHTING.K
    calls = {
        "overlap": lambda: rank_overlap(embedding, label, prototypes, k),
        "topk": lambda: embedding.topk(k, dim=1),
        "naive": lambda: naive_overlap(embedding, label, prototypes, k),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(5, steps)):
        for name, call in calls.items():
            if name == "naive" and len(times[name]) >= 3:
                continue
            start = now(cfg.MODEL.DEVICE)
            call()
            times[name].append(now(cfg.MODEL.DEVICE) - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {f"{name}_s": value for name, value in seconds.items()} | {
        "overlap_to_topk": seconds["overlap"] / seconds["topk"],
        "naive_to_overlap": seconds["naive"] / seconds["overlap"],
    }


def naive_overlap(embedding: torch.Tensor, label: torch.Tensor, prototypes: torch.Tensor, k: int) -> torch.Tensor:
    """The straightforward way: upsample the embedding, sort all channels, loop over classes and their channels."""
    full = torch.nn.functional.interpolate(embedding, label.shape[-2:], mode="bilinear", align_corners=True)
    ranked = full.argsort(dim=1, descending=True)[:, :k]
    overlap = torch.zeros(label.shape, device=label.device)
    for number, prototype in enumerate(prototypes):
        for channel in prototype.topk(k).indices:
            overlap += ((ranked == channel).any(dim=1) & (label == number)).float()
    return overlap / k
