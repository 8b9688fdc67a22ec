"""The numbers that the figures show."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from wpl_d2.modeling import UnifiedSegDet
from wpl_d2.weighting.sampling import at_cells
from wpl_d2.weighting.similarity import rank_overlap

from .trained import Labeled


def embedding_variance(images: Iterable[Labeled], num_classes: int) -> Tensor:
    """The variance of the embeddings of rightly labeled pixels within each class, a mean over channels (Fig. 5b).

    Pixels are taken at the embedding's cells.

    Returns:
        (C,) float64, NaN for a class with fewer than two such cells.
    """
    count = torch.zeros(num_classes, dtype=torch.float64)
    sums = squares = torch.zeros(num_classes, 1, dtype=torch.float64)
    for image in images:
        labels = at_cells(torch.where(image.right, image.pseudo.labels, num_classes), *image.embedding.shape[-2:])
        member = torch.nn.functional.one_hot(labels.flatten().cpu(), num_classes + 1)[:, :-1].double()
        cells = image.embedding[0].flatten(1).T.double().cpu()
        count = count + member.sum(dim=0)
        sums = sums + member.T @ cells
        squares = squares + member.T @ cells.square()
    mean = sums / count[:, None]
    variance = (squares / count[:, None] - mean.square()).mean(dim=1)
    return variance.masked_fill(count < 2, torch.nan)


def hamming_distances(images: Iterable[Labeled], prototypes: Tensor, k: int) -> Tensor:
    """How far pixels' codes are from that of their label's prototype (Fig. 5c).

    A code has a 1 for each of the k most active channels; two of them differ in at most 2 k places.

    Args:
        images: judged pixels count.
        prototypes: (C, D) float.
        k: of the codes.

    Returns:
        (2, k + 1) int64: how many wrongly and rightly labeled pixels have the distance 0, 2, ..., 2 k.
    """
    counts = torch.zeros(2, k + 1, dtype=torch.int64)
    for image in images:
        shared = (rank_overlap(image.embedding, image.pseudo.labels, prototypes, k) * k).round().long()
        for side, mask in enumerate((image.judged & ~image.right, image.right)):
            counts[side] += torch.bincount(k - shared[mask].cpu(), minlength=k + 1)
    return counts


def label_accuracy(images: Iterable[Labeled], threshold: float) -> dict[str, float]:
    """How many labels are right: of all, of confident ones, and of these by their weights (Fig. 5a, 6).

    Args:
        images: judged pixels count.
        threshold: least confidence of a confident pixel.

    Returns:
        in percent "pixel", "confident", "weighted", and "coverage", the confident part of all; NaN of none.
    """
    sums = torch.zeros(6, dtype=torch.float64)
    for image in images:
        confident = image.judged & (image.pseudo.confidence >= threshold)
        weight = image.pseudo.weight.double() * confident
        parts = (image.judged, image.right, confident, confident & image.right, weight, weight * image.right)
        sums += torch.stack([part.sum().double() for part in parts]).cpu()
    pixels, right, confident, surely_right, weight, right_weight = sums.tolist()
    return {
        "pixel": _percent(right, pixels),
        "confident": _percent(surely_right, confident),
        "weighted": _percent(right_weight, weight),
        "coverage": _percent(confident, pixels),
    }


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else float("nan")


def channel_attention(model: UnifiedSegDet, image: Tensor, channels: Tensor) -> Tensor:
    """Where an image makes channels of the embedding active, by Grad-CAM (supplementary Fig. 4).

    The weights of the backbone's last maps are their mean gradients with respect to the sum of the channels' means.

    Args:
        model: in evaluation mode.
        image: (3, H, W) in 0..255.
        channels: (D,) bool.

    Returns:
        (h, w) float32 in [0, 1] of the last maps' size; zeros if nothing speaks for the channels.
    """
    size = (image.shape[-2], image.shape[-1])
    with torch.enable_grad():
        features = {name: maps.detach() for name, maps in model.encode(model.normalize(image[None])).items()}
        last = features[name := list(features)[-1]].requires_grad_()
        embedding = model.decode(features | {name: last}, size).embedding
        (gradient,) = torch.autograd.grad(embedding[0, channels].mean(dim=(1, 2)).sum(), last)
    attention = (gradient.mean(dim=(2, 3), keepdim=True) * last).sum(dim=1)[0].relu().detach()
    return attention / attention.max().clamp(min=torch.finfo(attention.dtype).tiny)
