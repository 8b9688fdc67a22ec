"""The family of weights: each kind scores how likely a pseudo-label is right (WEIGHTING.KIND)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry
from torch import Tensor, nn
from typing_extensions import override

from ..structures import IGNORE, among_classes
from ..utils.comm import all_gather_rows
from ..utils.errors import InputError, suggest
from .components import label_components, on_cells, region_mean
from .evidence import Evidence, Memory
from .reliability import best_boxes
from .sampling import at_cells
from .similarity import (
    ClassScores,
    at_label,
    cosine_scores,
    euclidean_scores,
    margin,
    mean_prototype,
    neighbor_scores,
    rank_scores,
)

SCORE_REGISTRY = Registry("SCORE")
SCORE_REGISTRY.__doc__ = "Kinds of weights: subclasses of `Score`, chosen by WEIGHTING.KIND under their `kind`."

_VIEWS = ((1.0, True), (0.75, False), (1.25, False))
"""Scale and mirroring of the views that `tta` adds to the weak one."""


@dataclass(frozen=True)
class ScoreOptions:
    """The options of all kinds; each uses some of them.

    Attributes:
        num_classes: C.
        objects: ids of the classes that a detector knows.
        k: size of the top-k sets.
        centered: subtract the mean prototype from embeddings and prototypes before they are compared.
        resolution: "stride4" or "full", see `rank_overlap`.
        align_corners: of the upsampling for "full".
        object_region: what `object` averages over: "component" or "class".
        momentum: factor of the old value in running means.
        constituents: kinds that `calibrated` combines.
    """

    num_classes: int
    objects: tuple[int, ...] = ()
    k: int = 5
    centered: bool = False
    resolution: str = "stride4"
    align_corners: bool = False
    object_region: str = "component"
    momentum: float = 0.999
    constituents: tuple[str, ...] = ("confidence", "object", "cosine_margin")


class Score(nn.Module):
    """One kind of weight.

    A score with running statistics stages those of the step, in training mode only, and `after_step` updates its state,
    equally on every rank.

    Attributes:
        kind: its name in WEIGHTING.KIND.
        needs: what it needs beyond the prediction: "bank", "boxes" or "views" (further forward passes).
        learns: whether its state changes in training.
    """

    kind: ClassVar[str]
    needs: frozenset[str] = frozenset()
    learns: ClassVar[bool] = False

    def __init__(self, options: ScoreOptions) -> None:
        """Store the options."""
        super().__init__()
        self.options = options

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """(B, H, W) float32 in [0, 1], higher for more trustworthy labels; undefined where there is no label."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Update the state by what was staged. A collective call."""


class PrototypeScore(Score):
    """A score by similarity to the memory bank."""

    needs = frozenset({"bank"})

    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        """The similarity of cells to each class; `offset` (D,), if any, has been subtracted from the cells already."""
        raise NotImplementedError

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        options, embedding = self.options, evidence.embedding
        offset = None
        if options.centered:
            offset = mean_prototype(memory.prototypes, memory.counts > 0)
            embedding = embedding.float() - offset.view(-1, 1, 1)
        score = self.class_scores(memory, offset)
        return at_label(score, embedding, evidence.pseudo.labels, options.resolution, options.align_corners)

    def prototypes(self, memory: Memory, offset: Tensor | None) -> Tensor:
        """(C, D) float32, minus the offset; zeros for a class without embeddings."""
        if offset is None:
            return memory.prototypes
        return (memory.prototypes - offset) * (memory.counts > 0).unsqueeze(1)


@SCORE_REGISTRY.register()
class Rank(PrototypeScore):
    """The overlap of the top k channels (paper, section 3.3): `rank_overlap`."""

    kind = "rank"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        return rank_scores(self.prototypes(memory, offset), self.options.k)


@SCORE_REGISTRY.register()
class RankMargin(Rank):
    """The overlap with the label's prototype minus the best overlap with another one, mapped to [0, 1]."""

    kind = "rank_margin"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        return margin(super().class_scores(memory, offset))


@SCORE_REGISTRY.register()
class Cosine(PrototypeScore):
    """The cosine of embedding and prototype, clamped to [0, 1]."""

    kind = "cosine"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        return cosine_scores(self.prototypes(memory, offset))


@SCORE_REGISTRY.register()
class CosineMargin(Cosine):
    """The cosine with the label's prototype minus the best cosine with another one, mapped to [0, 1]."""

    kind = "cosine_margin"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        return margin(super().class_scores(memory, offset))


@SCORE_REGISTRY.register()
class Euclidean(PrototypeScore):
    """The Euclidean similarity of embedding and prototype, in (0, 1]: `wpl_d2.weighting.euclidean`."""

    kind = "euclidean"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        return euclidean_scores(self.prototypes(memory, offset))


@SCORE_REGISTRY.register()
class NeighborMargin(PrototypeScore):
    """The mean cosine with the 8 nearest embeddings of the label's class minus that of the best other class.

    They are embeddings of the bank itself: the prototype of a class with several appearances may be similar to none.
    """

    kind = "knn_margin"

    @override
    def class_scores(self, memory: Memory, offset: Tensor | None) -> ClassScores:
        embeddings = memory.embeddings if offset is None else memory.embeddings - offset
        return margin(neighbor_scores(embeddings, memory.filled))


@SCORE_REGISTRY.register()
class Confidence(Score):
    """The probability of the label."""

    kind = "confidence"

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        return evidence.pseudo.confidence


@SCORE_REGISTRY.register()
class ObjectConfidence(Score):
    """The probability of the label times its mean over the pixel's region.

    The region is the connected component ("component", found on every fourth pixel) or all pixels of the label in the
    image ("class").
    """

    kind = "object"

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        pseudo = evidence.pseudo
        if self.options.object_region == "class":
            regions = pseudo.labels.masked_fill(pseudo.labels == IGNORE, self.options.num_classes)
            return pseudo.confidence * region_mean(pseudo.confidence, regions, self.options.num_classes + 1)
        height, width = pseudo.labels.shape[-2:]
        cells = on_cells(pseudo.labels)
        regions = label_components(cells, torch.arange(self.options.num_classes, device=cells.device))
        mean = at_cells(region_mean(on_cells(pseudo.confidence), regions, cells[0].numel() + 1), height, width)
        # At borders a pixel may be of another class than its cell, and is then a region of its own.
        shared = at_cells(cells, height, width) == pseudo.labels
        return pseudo.confidence * torch.where(shared, mean, pseudo.confidence)


@SCORE_REGISTRY.register()
class SoftMatch(Score):
    """A Gaussian of the confidence, truncated above its mean (SoftMatch, Chen et al., ICLR 2023, eq. 5 to 8).

    exp(-(c - mean)^2 / (2 * variance / 4)) below the running mean of all pseudo-labels' confidence, 1 above it.

    Attributes:
        mean: () float32, running.
        variance: () float32, running.
    """

    kind = "softmatch"
    learns = True
    mean: Tensor
    variance: Tensor

    def __init__(self, options: ScoreOptions) -> None:
        """Start with mean 1 / C and variance 1, as published."""
        super().__init__(options)
        self.register_buffer("mean", torch.tensor(1.0 / options.num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self._staged: list[Tensor] = []

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        confidence, valid = evidence.pseudo.confidence, evidence.pseudo.valid
        masked = confidence * valid
        if self.training:
            self._staged.append(torch.stack([valid.sum().float(), masked.sum(), (masked * confidence).sum()]))
        below = (self.mean - confidence).clamp(min=0.0)
        return torch.exp(-2.0 * below.square() / self.variance.clamp(min=torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        if self._staged:
            count, total, squares = all_gather_rows(torch.stack(self._staged)).sum(dim=0)
            mean = total / count.clamp(min=1)
            variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0.0)
            step = (1.0 - self.options.momentum) * (count > 0)
            self.mean.lerp_(mean, step)
            self.variance.lerp_(variance, step)
        self._staged = []


@SCORE_REGISTRY.register()
class BoxScore(Score):
    """The best score of a box of the label's class around the pixel; for classes without boxes 1 - that of any box."""

    kind = "detector"
    needs = frozenset({"boxes"})

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        assert evidence.detections is not None  # see `needs`
        labels = evidence.pseudo.labels
        found = best_boxes(labels, evidence.detections)
        return torch.where(among_classes(labels, self.options.objects), found.own, 1.0 - found.any)


@SCORE_REGISTRY.register()
class TestTimeAugmentation(Score):
    """The mean probability of the label over the weak view, mirrored, and at the scales .75 and 1.25."""

    kind = "tta"
    needs = frozenset({"views"})

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        return pick_class(mean_probabilities(evidence), evidence.pseudo.labels)


def build_scores(kinds: str | Sequence[str], options: ScoreOptions, key: str = "WEIGHTING.KIND") -> list[Score]:
    """The scores that a config key names.

    Args:
        kinds: one name or several.
        options: for all of them.
        key: the key, for messages.

    Raises:
        InputError: no name, an unknown name, or a name given twice.
    """
    known = {score.kind: score for _, score in SCORE_REGISTRY}
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not kinds:
        raise InputError(f"{key}: names nothing; give one or more of {', '.join(sorted(known))}")
    for kind in kinds:
        if kind not in known:
            raise InputError(f"{key}: {kind!r} is not known; {suggest(str(kind), known)}")
        if kinds.count(kind) > 1:
            raise InputError(f"{key}: names {kind} twice; to sharpen it set WEIGHTING.POWER")
    return [known[kind](options) for kind in kinds]


def chosen_scores(kinds: str | Sequence[str]) -> list[type[Score]]:
    """The registered scores among the names of a config key; those that are unknown `build_scores` reports."""
    names = [kinds] if isinstance(kinds, str) else kinds
    return [score for _, score in SCORE_REGISTRY if score.kind in names]


def comparable_scores(options: ScoreOptions, lacks: Collection[str]) -> dict[str, Score]:
    """All scores that do not learn, and their variants, to be compared with each other.

    Args:
        options: for all of them; both values of `centered` and `object_region` are built.
        lacks: what the evidence will not have; scores that need it are left out.

    Returns:
        by kind, with the suffix `_centered` or `_class` for variants.
    """
    scores: dict[str, Score] = {}
    for _, score in SCORE_REGISTRY:
        if score.learns or score.needs & set(lacks):
            continue
        scores[score.kind] = score(replace(options, centered=False, object_region="component"))
        if issubclass(score, PrototypeScore):
            scores[f"{score.kind}_centered"] = score(replace(options, centered=True))
        if score is ObjectConfidence:
            scores[f"{score.kind}_class"] = score(replace(options, object_region="class"))
    return scores


def mean_probabilities(evidence: Evidence) -> Tensor:
    """Class probabilities (B, C, H, W) float32, averaged over the weak view and its augmented versions."""
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
    """The values of maps (B, C, H, W) at the labels (B, H, W) int64; 0 where these are `IGNORE`."""
    none = labels == IGNORE
    return maps.gather(1, labels.masked_fill(none, 0).unsqueeze(1)).squeeze(1).masked_fill(none, 0.0)
