"""The family of weights: each kind is a score of how far a pseudo-label can be believed (WEIGHTING.KIND)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ..structures import IGNORE, Detections, PseudoLabels
from ..utils.comm import all_gather_rows
from ..utils.errors import InputError, suggest
from .components import connected_components
from .memory_bank import MemoryBank, pooled_prototypes
from .reliability import best_boxes
from .sampling import at_cells
from .similarity import (
    ClassScores,
    at_label,
    cosine_scores,
    euclidean_scores,
    margin,
    mean_prototype,
    neighbour_scores,
    rank_scores,
)

SCORE_REGISTRY = Registry("SCORE")
SCORE_REGISTRY.__doc__ = "Kinds of weights: subclasses of `Score`, chosen by WEIGHTING.KIND under their `kind`."

STRIDE = 4
"""Pixels from cell to cell on which connected components are told apart: labels hold nothing finer."""
_VIEWS = ((1.0, True), (0.75, False), (1.25, False))
"""Scale, and whether mirrored, of the views that `tta` adds to the weak one."""


@dataclass(frozen=True)
class Evidence:
    """All that is known about the pseudo-labels of B unmixed weak views.

    Attributes:
        pseudo: the labels.
        logits: (B, C, H, W) float, which they are the arg max of.
        embedding: (B, D, h, w) float, of the same views.
        detections: of each image, of any score; None without a detector.
        images: (B, 3, H, W) float, the views, normalized; None where no kind asks for a forward.
        segment: logits (B, C, H', W') of images of any size, by the model that labeled, in evaluation mode.
    """

    pseudo: PseudoLabels
    logits: Tensor
    embedding: Tensor
    detections: Sequence[Detections] | None = None
    images: Tensor | None = None
    segment: Callable[[Tensor], Tensor] | None = None


class Memory:
    """What memory banks hold at the moment."""

    def __init__(self, banks: Sequence[MemoryBank]) -> None:
        """Look at banks of equal classes and channels, which are pooled when they are first asked for."""
        self.banks = banks

    @cached_property
    def _pooled(self) -> tuple[Tensor, Tensor]:
        return pooled_prototypes(self.banks)

    @property
    def prototypes(self) -> Tensor:
        """(C, D) float32, zeros for a class without embeddings."""
        return self._pooled[0]

    @property
    def counts(self) -> Tensor:
        """(C,) int64, the number of embeddings of each class."""
        return self._pooled[1]

    @property
    def embeddings(self) -> Tensor:
        """(C, N, D) float32, the embeddings of each class, zeros in free places."""
        return torch.cat([bank.ring for bank in self.banks], dim=1)

    @property
    def filled(self) -> Tensor:
        """(C, N) bool, False for free places of `embeddings`."""
        return torch.cat([bank.filled for bank in self.banks], dim=1)


@dataclass(frozen=True)
class ScoreOptions:
    """What the kinds can be told; each takes what concerns it.

    Attributes:
        num_classes: C.
        objects: ids of the classes that a detector knows.
        k: size of the rank sets.
        centered: subtract the mean prototype from pixel and prototype before they are compared.
        resolution: "stride4" or "full", see `rank_overlap`.
        align_corners: of the upsampling that "full" does.
        object_region: what `object` averages over: "component" or "class".
        momentum: share of the former value in running means.
    """

    num_classes: int
    objects: tuple[int, ...] = ()
    k: int = 5
    centered: bool = False
    resolution: str = "stride4"
    align_corners: bool = False
    object_region: str = "component"
    momentum: float = 0.999


class Score(nn.Module):
    """One kind of weight.

    A step calls it; what it remembers of the step it stages, in training mode alone, and `after_step` stores that, on
    every rank the same.

    Attributes:
        kind: its name in WEIGHTING.KIND.
        needs: what it cannot do without: "bank", "boxes" and "views" (a forward of its own).
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, options: ScoreOptions) -> None:
        """Prepare the score."""
        super().__init__()
        self.options = options

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """(B, H, W) float32 in [0, 1], higher where a label is believed; anything where there is none."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Store what the step staged. A collective call."""

    def discard(self) -> None:
        """Drop what the step staged."""


class PrototypeScore(Score):
    """A score by likeness to what the memory bank holds."""

    needs = frozenset({"bank"})

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """How alike a cell is to each class, `offset` (D,) having been subtracted from it already."""
        raise NotImplementedError

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        options, embedding = self.options, evidence.embedding
        offset = memory.prototypes.new_zeros(memory.prototypes.shape[1])
        if options.centered:
            offset = mean_prototype(memory.prototypes, memory.counts > 0)
            embedding = embedding.float() - offset.view(-1, 1, 1)
        score = self.class_scores(memory, offset)
        return at_label(score, embedding, evidence.pseudo.labels, options.resolution, options.align_corners)

    def prototypes(self, memory: Memory, offset: Tensor) -> Tensor:
        """(C, D) float32 without the offset; zeros stay zeros."""
        return (memory.prototypes - offset) * (memory.counts > 0).unsqueeze(1)


@SCORE_REGISTRY.register()
class Rank(PrototypeScore):
    """The overlap of the top k channels (paper, section 3.3): `rank_overlap`."""

    kind = "rank"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `rank_scores`."""
        return rank_scores(self.prototypes(memory, offset), self.options.k)


@SCORE_REGISTRY.register()
class RankMargin(Rank):
    """The overlap with the own prototype minus that with the best other one, brought to [0, 1]."""

    kind = "rank_margin"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `margin`."""
        return margin(super().class_scores(memory, offset))


@SCORE_REGISTRY.register()
class Cosine(PrototypeScore):
    """The cosine of pixel and prototype, negative values set to 0."""

    kind = "cosine"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `cosine_scores`."""
        return cosine_scores(self.prototypes(memory, offset))


@SCORE_REGISTRY.register()
class CosineMargin(Cosine):
    """The cosine with the own prototype minus that with the best other one, brought to [0, 1]."""

    kind = "cosine_margin"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `margin`."""
        return margin(super().class_scores(memory, offset))


@SCORE_REGISTRY.register()
class Euclidean(PrototypeScore):
    """The nearness of pixel and prototype, in (0, 1]: `wpl_d2.weighting.euclidean`."""

    kind = "euclidean"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `euclidean_scores`."""
        return euclidean_scores(self.prototypes(memory, offset))


@SCORE_REGISTRY.register()
class NeighbourMargin(PrototypeScore):
    """The mean cosine with the 8 most alike embeddings of the own class minus that of the best other class.

    The embeddings are those of the bank itself, for the mean of a class of several looks may be like none of them.
    """

    kind = "knn_margin"

    def class_scores(self, memory: Memory, offset: Tensor) -> ClassScores:
        """See `neighbour_scores` and `margin`."""
        return margin(neighbour_scores(memory.embeddings - offset, memory.filled))


@SCORE_REGISTRY.register()
class Confidence(Score):
    """The probability of the label."""

    kind = "confidence"

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        return evidence.pseudo.confidence


@SCORE_REGISTRY.register()
class ObjectConfidence(Score):
    """The probability of the label times its mean over all that the label is of.

    That is the pixel's connected component ("component", told apart on every fourth pixel) or all pixels of its class
    in the image ("class"): an object that is half dog, half cat is believed in neither half.
    """

    kind = "object"

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        pseudo = evidence.pseudo
        if self.options.object_region == "class":
            regions = pseudo.labels.masked_fill(pseudo.labels == IGNORE, self.options.num_classes)
            return pseudo.confidence * region_mean(pseudo.confidence, regions, self.options.num_classes + 1)
        height, width = pseudo.labels.shape[-2:]
        cells = at_cells(pseudo.labels, -(-height // STRIDE), -(-width // STRIDE))
        regions = label_components(cells, self.options.num_classes)
        known = at_cells(pseudo.confidence, *cells.shape[-2:])
        mean = at_cells(region_mean(known, regions, cells[0].numel() + 1), height, width)
        # At borders a pixel may be of another class than its cell, and then stands for itself.
        shared = at_cells(cells, height, width) == pseudo.labels
        return pseudo.confidence * torch.where(shared, mean, pseudo.confidence)


@SCORE_REGISTRY.register()
class SoftMatch(Score):
    """A Gaussian of the confidence, cut off above its mean (SoftMatch, Chen et al., ICLR 2023, eq. 5 to 8).

    exp(-(c - mean)^2 / (2 * variance / 4)) below the running mean of all pseudo-labels' confidence, 1 above it.

    Attributes:
        mean: () float32, running.
        variance: () float32, running.
    """

    kind = "softmatch"
    mean: Tensor
    variance: Tensor

    def __init__(self, options: ScoreOptions) -> None:
        """Begin with the mean 1 / C and the variance 1, as published."""
        super().__init__(options)
        self.register_buffer("mean", torch.tensor(1.0 / options.num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.discard()

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        confidence, valid = evidence.pseudo.confidence, evidence.pseudo.valid
        held = confidence * valid
        if self.training:
            self._staged.append(torch.stack([valid.sum().float(), held.sum(), (held * confidence).sum()]))
        below = (self.mean - confidence).clamp(min=0.0)
        return torch.exp(-2.0 * below.square() / self.variance.clamp(min=torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move mean and variance towards those of all ranks' step."""
        if self._staged:
            count, total, squares = all_gather_rows(torch.stack(self._staged)).sum(dim=0)
            mean = total / count.clamp(min=1)
            variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0.0)
            share = (1.0 - self.options.momentum) * (count > 0)
            self.mean.lerp_(mean, share)
            self.variance.lerp_(variance, share)
        self.discard()

    def discard(self) -> None:
        """See `Score`."""
        self._staged: list[Tensor] = []


@SCORE_REGISTRY.register()
class BoxScore(Score):
    """The score of the best box of the label's class around the pixel; of other classes, 1 - the best of any box."""

    kind = "detector"
    needs = frozenset({"boxes"})
    is_object: Tensor

    def __init__(self, options: ScoreOptions) -> None:
        """Prepare the table of classes that get boxes."""
        super().__init__(options)
        table = torch.zeros(IGNORE + 1, dtype=torch.bool)
        table[list(options.objects)] = True
        self.register_buffer("is_object", table, persistent=False)

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        assert evidence.detections is not None  # see `needs`
        found = best_boxes(evidence.pseudo.labels, evidence.detections)
        return torch.where(self.is_object[evidence.pseudo.labels], found.own, 1.0 - found.any)


@SCORE_REGISTRY.register()
class TestTimeAugmentation(Score):
    """The mean probability of the label over the weak view, its mirror image, and itself at scales .75 and 1.25."""

    kind = "tta"
    needs = frozenset({"views"})

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """See `Score`."""
        return pick_class(mean_probabilities(evidence), evidence.pseudo.labels)


def build_scores(kinds: str | Sequence[str], options: ScoreOptions) -> list[Score]:
    """The scores of WEIGHTING.KIND, whose product is the weight's.

    Args:
        kinds: their names, or the one name.
        options: of all of them.

    Raises:
        InputError: no name, one that does not exist, or one twice.
    """
    known = {score.kind: score for _, score in SCORE_REGISTRY}
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not kinds:
        raise InputError(f"WEIGHTING.KIND: names nothing; give one or more of {', '.join(sorted(known))}")
    for kind in kinds:
        if kind not in known:
            raise InputError(f"WEIGHTING.KIND: {kind!r} is not known; {suggest(str(kind), known)}")
        if kinds.count(kind) > 1:
            raise InputError(f"WEIGHTING.KIND: names {kind} twice; to sharpen it set WEIGHTING.POWER")
    return [known[kind](options) for kind in kinds]


def comparable_scores(options: ScoreOptions, lacks: Collection[str]) -> dict[str, Score]:
    """One score of each kind that remembers nothing, and its variants, to be compared with each other.

    Args:
        options: of all of them; both values of `centered` and `object_region` are built.
        lacks: what evidence will not have; scores that need it are left out.

    Returns:
        by kind, with the suffix `_centered` or `_class` for those variants.
    """
    scores: dict[str, Score] = {}
    for _, score in SCORE_REGISTRY:
        if score is SoftMatch or score.needs & set(lacks):
            continue
        scores[score.kind] = score(replace(options, centered=False, object_region="component"))
        if issubclass(score, PrototypeScore):
            scores[f"{score.kind}_centered"] = score(replace(options, centered=True))
        if score is ObjectConfidence:
            scores[f"{score.kind}_class"] = score(replace(options, object_region="class"))
    return scores


def mean_probabilities(evidence: Evidence) -> Tensor:
    """(B, C, H, W) float32: the mean over the weak view and its augmented versions."""
    assert evidence.images is not None and evidence.segment is not None  # see `Score.needs`
    size = evidence.logits.shape[-2:]
    total = evidence.logits.float().softmax(dim=1)
    for scale, mirrored in _VIEWS:
        view = evidence.images.flip(-1) if mirrored else evidence.images
        if scale != 1.0:
            view = F.interpolate(view, scale_factor=scale, mode="bilinear", antialias=True)
        logits = evidence.segment(view).float()
        logits = F.interpolate(logits.flip(-1) if mirrored else logits, size=size, mode="bilinear")
        total += logits.softmax(dim=1)
    return total / (1 + len(_VIEWS))


def pick_class(maps: Tensor, labels: Tensor) -> Tensor:
    """Of maps (B, C, H, W) those of the labels (B, H, W) int64; 0 where these are `IGNORE`."""
    none = labels == IGNORE
    return maps.gather(1, labels.masked_fill(none, 0).unsqueeze(1)).squeeze(1).masked_fill(none, 0.0)


def region_mean(values: Tensor, regions: Tensor, count: int) -> Tensor:
    """Give each pixel the mean over its region.

    Args:
        values: (B, H, W) float.
        regions: (B, H, W) int64 in [0, count), numbered in each image by itself.
        count: how many numbers there are.
    """
    flat, numbers = values.flatten(1), regions.flatten(1)
    sums = flat.new_zeros(len(flat), count).scatter_add_(1, numbers, flat)
    sizes = flat.new_zeros(len(flat), count).scatter_add_(1, numbers, torch.ones_like(flat))
    return (sums / sizes.clamp(min=1)).gather(1, numbers).view_as(values)


def label_components(labels: Tensor, num_classes: int) -> Tensor:
    """Number the 8-connected components of all classes.

    Args:
        labels: (B, H, W) int64 class ids or `IGNORE`.
        num_classes: C.

    Returns:
        (B, H, W) int64, from 1 on and different for each component of an image; 0 where there is no label.
    """
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    masks = labels.unsqueeze(1) == classes
    # A component's number is the place of one of its pixels: no two classes share one.
    return connected_components(masks.flatten(0, 1)).view(masks.shape).sum(dim=1)
