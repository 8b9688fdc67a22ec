"""Similarities of pixels and their class prototypes: rank overlap (paper, section 3.3), cosine, Euclidean, margins.

Every cell of the embedding is compared with all C prototypes, and the label selects one of the results: that is
cheaper than upsampling D channels to the label's resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import IGNORE
from ..utils.cpu_speed import kth_largest
from ..utils.errors import check_name
from .indices import arange, nearest_cells

ClassScores = Callable[[Tensor], Tensor]
"""Cells (B, D, h, w) -> (B, h, w, C) float32: the similarity of each cell to each class."""

RESOLUTIONS = ("stride4", "full")
_ROWS = 16
"""Rows of the label map that are upsampled at a time at resolution "full": 20 MB for 4 images of width 321."""
_PRODUCTS = 1 << 24
"""Inner products of cells and embeddings in memory at a time: 64 MB."""
_KEYS = 1 << 16
"""Keys that a CPU compares at a time: 512 KB."""


def rank_overlap(
    embedding: Tensor,
    label: Tensor,
    prototypes: Tensor,
    k: int = 5,
    *,
    resolution: str = "stride4",
    align_corners: bool = False,
) -> Tensor:
    """|top-k channels of the pixel ∩ top-k channels of its label's prototype| / k (paper, section 3.3).

    The top-k set of a vector are its k largest entries that are > 0, ties to the lower index; there may be fewer.

    Args:
        embedding: (B, D, h, w) float.
        label: (B, H, W) int64 class ids, `IGNORE` where there is none.
        prototypes: (C, D) float.
        k: size of the sets.
        resolution: "stride4": each label pixel takes the embedding of the nearest cell (`nearest-exact`);
            "full": the embedding is upsampled bilinearly to the label's size first.
        align_corners: of that upsampling.

    Returns:
        (B, H, W) float32 in {0, 1/k, ..., 1}, 0 where the label is `IGNORE`.

    Raises:
        ValueError: k < 1, an unknown resolution, or shapes that do not fit.
    """
    check_shapes(embedding, label, prototypes)
    return at_label(rank_scores(prototypes, k), embedding, label, resolution, align_corners)


def cosine(
    embedding: Tensor,
    label: Tensor,
    prototypes: Tensor,
    *,
    resolution: str = "stride4",
    align_corners: bool = False,
) -> Tensor:
    """The cosine of a pixel's embedding and its class prototype, clamped to [0, 1].

    Args and shapes are those of `rank_overlap`.

    Returns:
        (B, H, W) float32 in [0, 1], 0 where the label is `IGNORE` or one of the two vectors is 0.
    """
    check_shapes(embedding, label, prototypes)
    return at_label(cosine_scores(prototypes), embedding, label, resolution, align_corners)


def euclidean(
    embedding: Tensor,
    label: Tensor,
    prototypes: Tensor,
    *,
    resolution: str = "stride4",
    align_corners: bool = False,
) -> Tensor:
    """1 / (1 + d^2 / m), with d the distance to the prototype and m the mean squared length of the prototypes.

    Zero prototypes (empty classes) do not count in m. Dividing by m makes the value independent of the features' scale,
    which changes in training; unlike a distance between prototypes, m is defined with a single class.

    Args and shapes are those of `rank_overlap`.

    Returns:
        (B, H, W) float32 in (0, 1], 0 where the label is `IGNORE`.
    """
    check_shapes(embedding, label, prototypes)
    return at_label(euclidean_scores(prototypes), embedding, label, resolution, align_corners)


def rank_scores(prototypes: Tensor, k: int) -> ClassScores:
    """The overlap of `rank_overlap` with every class.

    Args:
        prototypes: (C, D) float.
        k: size of the sets.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"WEIGHTING.K: {k} is not a size of a set of channels; set it to 1 or more")
    # Matrix products count the shared channels; bfloat16 holds whole numbers up to 256.
    dtype = torch.bfloat16 if k <= 256 else torch.float32
    in_top = top_channels(prototypes, k).to(dtype).T

    def score(cells: Tensor) -> Tensor:
        # As bytes, which are converted ten times as fast as bool.
        active = top_channels(cells, k).view(torch.uint8).to(dtype)
        return (active @ in_top).float().div_(k)

    return score


def cosine_scores(prototypes: Tensor) -> ClassScores:
    """The cosine of `cosine` with every class; `prototypes` is (C, D) float."""
    directions = F.normalize(prototypes.float(), dim=1)

    def score(cells: Tensor) -> Tensor:
        return _dot(F.normalize(cells.float(), dim=1), directions).clamp_(0.0, 1.0)

    return score


def euclidean_scores(prototypes: Tensor) -> ClassScores:
    """The similarity of `euclidean` to every class; `prototypes` is (C, D) float."""
    points = prototypes.float()
    lengths = points.square().sum(dim=1)
    scale = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)

    def score(cells: Tensor) -> Tensor:
        cells = cells.float()
        squares = cells.square().sum(dim=1).unsqueeze(-1) - 2 * _dot(cells, points) + lengths
        return scale / (scale + squares.clamp_(min=0.0))

    return score


def neighbor_scores(embeddings: Tensor, filled: Tensor, neighbors: int = 8) -> ClassScores:
    """The mean cosine, clamped to [0, 1], with the nearest embeddings of each class; 0 for an empty class.

    Args:
        embeddings: (C, N, D) float, of each class.
        filled: (C, N) bool, False for free slots.
        neighbors: number of embeddings; all of a class's that has fewer.
    """
    classes, size, dim = embeddings.shape
    directions = F.normalize(embeddings.float(), dim=2).view(-1, dim)
    taken = min(neighbors, size)
    number = filled.sum(dim=1).clamp(1, taken)
    missing = ~filled.view(-1)

    def score(cells: Tensor) -> Tensor:
        rows = F.normalize(cells.float(), dim=1).movedim(1, -1).reshape(-1, dim)
        parts = []
        for part in rows.split(max(1, _PRODUCTS // len(directions))):
            near = (part @ directions.T).clamp_(min=0.0).masked_fill_(missing, 0.0)
            parts.append(near.view(-1, classes, size).topk(taken, dim=2, sorted=False).values.sum(dim=2) / number)
        return torch.cat(parts).view(cells.shape[0], *cells.shape[-2:], classes)

    return score


def margin(score: ClassScores) -> ClassScores:
    """The score of each class minus the best other one's, mapped from [-1, 1] to [0, 1]; `score` is in [0, 1]."""

    def ahead(cells: Tensor) -> Tensor:
        scores = score(cells)
        if scores.shape[-1] == 1:
            return (1.0 + scores) / 2
        best, second = scores.topk(2, dim=-1).values.unbind(dim=-1)
        # Of several equal best classes each has another one as its rival: a margin of 0.
        rival = torch.where(scores == best.unsqueeze(-1), second.unsqueeze(-1), best.unsqueeze(-1))
        return (1.0 + scores - rival) / 2

    return ahead


def mean_prototype(prototypes: Tensor, seen: Tensor) -> Tensor:
    """The mean of the prototypes of the classes that are not empty.

    Args:
        prototypes: (C, D) float.
        seen: (C,) bool, False for empty classes.

    Returns:
        (D,) float32, zeros if all classes are empty.
    """
    seen = seen.unsqueeze(1)
    return (prototypes.float() * seen).sum(dim=0) / seen.sum().clamp(min=1)


def top_channels(vectors: Tensor, k: int) -> Tensor:
    """Which channels are among the k largest entries that are > 0, ties to the lower channel.

    `torch.topk` does not define the order of ties, hence it compares unique keys: the bits of a positive float, which
    are ordered as its value is, and below them the channel, in descending order.

    Args:
        vectors: (B, D, ...) float, D < 2^16; compared in float32.
        k: how many.

    Returns:
        (B, ..., D) bool.
    """
    vectors = vectors.movedim(1, -1)
    rows, dim = vectors.flatten(0, -2).contiguous(), vectors.shape[-1]
    if rows.dtype in (torch.bfloat16, torch.float16):
        bits, whole = rows.view(torch.int16), torch.int32
    else:
        bits, whole = rows.float().view(torch.int32), torch.int64
    places = arange(dim - 1, -1, -1, device=rows.device, dtype=whole)
    room = 1 << dim.bit_length()
    in_top = torch.empty(rows.shape, dtype=torch.bool, device=rows.device)
    # On a CPU in parts that fit into a core's cache: three times as fast.
    size = max(1, _KEYS // dim) if rows.device.type == "cpu" else max(1, len(rows))
    for part, own in zip(bits.split(size), in_top.split(size), strict=True):
        keys = torch.add(places, part, alpha=room)
        # Entries of 0 have keys below `room`, and negative ones keys below 0.
        torch.ge(keys, kth_largest(keys, min(k, dim)).clamp(min=room), out=own)
    return in_top.view(vectors.shape)


@torch.no_grad()
def at_label(
    score: ClassScores, embedding: Tensor, label: Tensor, resolution: str = "stride4", align_corners: bool = False
) -> Tensor:
    """The score of each pixel's label.

    Args:
        score: one of this module's `ClassScores`.
        embedding: (B, D, h, w) float.
        label: (B, H, W) int64 class ids, `IGNORE` where there is none.
        resolution: see `rank_overlap`.
        align_corners: of the upsampling at "full" resolution.

    Returns:
        (B, H, W) float32, 0 where the label is `IGNORE`.
    """
    check_name("WEIGHTING.TOPK_RES", resolution, RESOLUTIONS)
    # Autocast would round embeddings and prototypes.
    with torch.autocast(embedding.device.type, enabled=False):
        if resolution == "full" and embedding.shape[-2:] != label.shape[-2:]:
            rows = label.split(_ROWS, dim=1)
            chunks = zip(_upsampled(embedding, label.shape[-2:], align_corners), rows, strict=True)
            return torch.cat([_pick(score(cells), part) for cells, part in chunks], dim=1)
        return _pick(score(embedding), label)


def _pick(scores: Tensor, label: Tensor) -> Tensor:
    """Scores (B, h, w, C), label (B, H, W) -> (B, H, W), the score of a pixel's label in its nearest cell."""
    images, height, width, classes = scores.shape
    size = (label.shape[-2], label.shape[-1])
    row, column = nearest_cells(images, (height, width), size, classes, label.device)
    none = label == IGNORE
    # One index into all scores: twice as fast as one for each dimension.
    place = label.masked_fill(none, 0).add_(row).add_(column)
    return scores.flatten().index_select(0, place.flatten()).view(label.shape).masked_fill_(none, 0.0)


def _upsampled(embedding: Tensor, size: torch.Size, align_corners: bool) -> Iterator[Tensor]:
    """`F.interpolate(embedding, size, mode="bilinear")`, bit by bit, in parts of `_ROWS` rows."""
    height, width = size
    source = embedding.shape[2]
    # Upsampling a unit matrix gives torch's own weights; computed here they would be rounded differently.
    unit = torch.eye(source, device=embedding.device).unsqueeze(0)
    weights = F.interpolate(unit, height, mode="linear", align_corners=align_corners)[0]
    above = (weights > 0).int().argmax(dim=0)
    below = (above + 1).clamp_(max=source - 1)
    upper = weights.gather(0, above.unsqueeze(0)).view(-1, 1)
    lower = weights.gather(0, below.unsqueeze(0)).view(-1, 1) * (below > above).view(-1, 1)

    embedding = embedding.float()
    for part in torch.arange(height, device=embedding.device).split(_ROWS):
        rows = embedding[:, :, above[part]] * upper[part] + embedding[:, :, below[part]] * lower[part]
        yield F.interpolate(rows, (len(part), width), mode="bilinear", align_corners=align_corners)


def _dot(cells: Tensor, vectors: Tensor) -> Tensor:
    """Inner products: cells (B, D, h, w), vectors (C, D) -> (B, h, w, C)."""
    return torch.einsum("bdhw,cd->bhwc", cells, vectors)


def check_shapes(embedding: Tensor, label: Tensor, prototypes: Tensor) -> None:
    """Raise an error unless embedding, labels and prototypes fit.

    Raises:
        ValueError: they are not (B, D, h, w), (B, H, W) and (C, D).
    """
    if embedding.dim() != 4 or label.dim() != 3 or embedding.shape[0] != label.shape[0]:
        raise ValueError(
            f"similarity: embedding {tuple(embedding.shape)} and label {tuple(label.shape)} do not fit; "
            "give (B, D, h, w) and (B, H, W)"
        )
    if prototypes.dim() != 2 or prototypes.shape[1] != embedding.shape[1]:
        raise ValueError(
            f"similarity: prototypes {tuple(prototypes.shape)} do not fit an embedding of "
            f"{embedding.shape[1]} channels; give (C, {embedding.shape[1]})"
        )
