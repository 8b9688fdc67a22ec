"""The weigher: memory banks, and how scores become the weights of pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import IGNORE, class_boxes
from ..utils.comm import all_gather_rows
from ..utils.errors import InputError, check_name
from .calibrated import Calibrated
from .evidence import Evidence, Memory
from .memory_bank import MemoryBank
from .reliability import reliable_mask
from .sampling import at_cells, class_sums, sample_per_class
from .scores import Rank, Score, ScoreOptions, build_scores
from .similarity import RESOLUTIONS

WEIGHT_FORMS = ("paper", "plus_one")
OBJECT_REGIONS = ("component", "class")


class PixelWeigher(nn.Module):
    """PPW: weights for pseudo-labels, in the paper by the pixel's similarity to its class prototype.

    The weight is s^POWER, where s in [0, 1] is the product of the scores that WEIGHTING.KIND names; with PER_CLASS it
    is divided by its running mean over the class, and with WEIGHT_FORM plus_one 1 is added.

    A step reads the banks (`weight`) and stages embeddings for them (`stage_labeled`, `stage_reliable`); `after_step`
    stores these, equally on every rank. Nothing has a gradient.

    Attributes:
        labeled_bank: embeddings of labeled pixels.
        unlabeled_bank: embeddings of reliable pixels of unlabeled images.
        scores: those of WEIGHTING.KIND, by name.
        class_means: the running means; None without PER_CLASS.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        kind: str | Sequence[str] = "rank",
        power: float = 1.0,
        per_class: bool = False,
        weight_form: str = "paper",
        bank_size: int = 256,
        push_per_image: int = 1,
        min_count: int = 16,
        labeled_conf: float = 0.95,
        reliable_conf: float = 0.95,
        box_score: float | None = None,
        **options: Any,
    ) -> None:
        """Start with empty banks.

        Args:
            num_classes: number of classes, C.
            dim: channels of the embedding, D.
            kind: one score of `SCORE_REGISTRY`, or several, which are multiplied.
            power: exponent of the score.
            per_class: divide by the running mean of the class.
            weight_form: "paper": W = s; "plus_one": W = s + 1.
            bank_size: embeddings per class in each bank.
            push_per_image: random pixels per class and image that a call stages.
            min_count: with scores that need the bank, a class with fewer embeddings in both banks has the weight 1.
            labeled_conf: labeled pixels are staged above this confidence.
            reliable_conf: least confidence of a reliable pseudo-label.
            box_score: least score of a box that makes pixels reliable; None disables RPPI.
            options: the other fields of `ScoreOptions`.

        Raises:
            InputError: an unknown name or a number out of its range.
        """
        super().__init__()
        self.options = ScoreOptions(num_classes, **options)
        check_name("WEIGHTING.TOPK_RES", self.options.resolution, RESOLUTIONS)
        check_name("WEIGHTING.OBJECT", self.options.object_region, OBJECT_REGIONS)
        check_name("WEIGHTING.WEIGHT_FORM", weight_form, WEIGHT_FORMS)
        _check_counts(self.options.k, push_per_image, min_count, bank_size)
        self.scores: Mapping[str, Score] = nn.ModuleDict(  # type: ignore[assignment]
            {score.kind: score for score in build_scores(kind, self.options)}
        )
        ranks = any(isinstance(score, Rank) for own in self.scores.values() for score in own.modules())
        if ranks and self.options.k >= dim:
            raise InputError(
                f"WEIGHTING.K: {self.options.k}, but an embedding has {dim} channels, and which are the most active of "
                "all says nothing; set it below MODEL.SEM_SEG_HEAD.CONVS_DIM"
            )
        self.num_classes = num_classes
        self.power = power
        self.weight_form = weight_form
        self.push_per_image = push_per_image
        self.min_count = min_count
        self.labeled_conf = labeled_conf
        self.reliable_conf = reliable_conf
        self.box_score = box_score
        self.labeled_bank = MemoryBank(num_classes, dim, bank_size)
        self.unlabeled_bank = MemoryBank(num_classes, dim, bank_size)
        self.class_means = RunningClassMean(num_classes, self.options.momentum) if per_class else None
        # For each bank the (features, labels) of each call in this step. Not part of the state, hence no buffers.
        self._staged: dict[str, list[tuple[Tensor, Tensor]]] = {"labeled": [], "unlabeled": []}

    @classmethod
    def from_config(cls, cfg: Any) -> PixelWeigher:
        """The weigher of a config."""
        head, weighting = cfg.MODEL.SEM_SEG_HEAD, cfg.WEIGHTING
        return cls(
            num_classes=head.NUM_CLASSES,
            dim=head.CONVS_DIM,
            kind=weighting.KIND,
            power=weighting.POWER,
            per_class=weighting.PER_CLASS,
            weight_form=weighting.WEIGHT_FORM,
            bank_size=weighting.BANK_SIZE,
            push_per_image=weighting.PUSH_PER_IMAGE,
            min_count=weighting.MIN_COUNT,
            labeled_conf=weighting.LABELED_CONF,
            reliable_conf=cfg.RPPI.CONF,
            box_score=cfg.RPPI.BOX_SCORE if cfg.RPPI.ENABLED else None,
            objects=tuple(cfg.MODEL.DETECTOR.CLASSES),
            k=weighting.K,
            centered=weighting.CENTERED,
            resolution=weighting.TOPK_RES,
            align_corners=head.ALIGN_CORNERS,
            object_region=weighting.OBJECT,
            momentum=weighting.MOMENTUM,
            constituents=tuple(weighting.CALIBRATED.SCORES),
        )

    @property
    def max_weight(self) -> float:
        """The largest weight that there is without PER_CLASS."""
        return 2.0 if self.weight_form == "plus_one" else 1.0

    @property
    def score_needs(self) -> frozenset[str]:
        """What the scores need beyond the prediction, see `Score`."""
        return frozenset[str]().union(*(score.needs for score in self.scores.values()))

    @property
    def needs(self) -> frozenset[str]:
        """What evidence must contain: `score_needs`, and "boxes" with RPPI."""
        return self.score_needs if self.box_score is None else self.score_needs | {"boxes"}

    @property
    def fit_needs(self) -> frozenset[str]:
        """What evidence of held-out images must contain, see `stage_held_out`."""
        learned = (score for score in self.scores.values() if isinstance(score, Calibrated))
        return frozenset[str]().union(*(score.needs for score in learned))

    @property
    def memory(self) -> Memory:
        """The current content of both banks."""
        return Memory((self.labeled_bank, self.unlabeled_bank))

    @torch.no_grad()
    def weight(self, evidence: Evidence) -> Tensor:
        """The weight of each pixel: (B, H, W) float32.

        It is 1 where there is no label and, with scores that need the bank, for classes with fewer than `min_count`
        embeddings.
        """
        labels = evidence.pseudo.labels
        memory = self.memory
        weight = reduce(torch.mul, [score(evidence, memory) for score in self.scores.values()])
        if self.power != 1.0:
            weight = weight.pow(self.power)
        neutral = self._neutral(labels, memory)
        if self.class_means is not None:
            weight = self.class_means(weight, labels, ~neutral)
        if self.weight_form == "plus_one":
            weight = weight + 1.0
        return weight.masked_fill(neutral, 1.0)

    @torch.no_grad()
    def reliable(self, evidence: Evidence) -> Tensor:
        """Which pixels RPPI takes as reliable: (B, H, W) bool, False everywhere without boxes or with RPPI disabled."""
        pseudo = evidence.pseudo
        if self.box_score is None or evidence.detections is None:
            return torch.zeros_like(pseudo.valid)
        boxes = class_boxes(evidence.detections, self.box_score)
        return reliable_mask(pseudo.labels, pseudo.confidence, boxes, self.reliable_conf) & pseudo.valid

    @torch.no_grad()
    def stage_labeled(self, embedding: Tensor, logits: Tensor, target: Tensor) -> None:
        """Stage labeled pixels that are predicted correctly, with a confidence above `labeled_conf`.

        Args:
            embedding: (B, D, h, w) float.
            logits: (B, C, H, W) float.
            target: (B, H, W) int64, the true labels, `IGNORE` where there is none.
        """
        # Only cells of the embedding can be staged, so only they need probabilities.
        cells = embedding.shape[-2:]
        confidence, predicted = at_cells(logits, *cells).float().softmax(dim=1).max(dim=1)
        target = at_cells(target, *cells)
        right = (predicted == target) & (confidence > self.labeled_conf)
        self._stage("labeled", embedding, target.masked_fill(~right, IGNORE))

    @torch.no_grad()
    def stage_reliable(self, embedding: Tensor, labels: Tensor, reliable: Tensor) -> None:
        """Stage reliable pixels of unlabeled images.

        Args:
            embedding: (B, D, h, w) float.
            labels: (B, H, W) int64 pseudo-labels.
            reliable: (B, H, W) bool.
        """
        self._stage("unlabeled", embedding, labels.masked_fill(~reliable, IGNORE))

    @torch.no_grad()
    def stage_held_out(self, evidence: Evidence, target: Tensor) -> None:
        """Stage pixels of labeled images that train nothing, for the fit of the score `calibrated`.

        Args:
            evidence: of the images.
            target: (B, H, W) int64, the true labels, `IGNORE` where there is none.
        """
        memory = self.memory
        for score in self.scores.values():
            if isinstance(score, Calibrated):
                score.stage(evidence, memory, target, self._neutral(evidence.pseudo.labels, memory))

    @torch.no_grad()
    def after_step(self) -> None:
        """Push what all ranks staged, in rank order, so that the banks are the same on every rank. A collective call.

        All ranks must have staged equally often, from equally many images.
        """
        for name, bank in (("labeled", self.labeled_bank), ("unlabeled", self.unlabeled_bank)):
            if self._staged[name]:
                features, labels = (_joined(rows) for rows in zip(*self._staged[name], strict=True))
                bank.push(all_gather_rows(features), all_gather_rows(labels))
                self._staged[name] = []
        for score in self.scores.values():
            score.after_step()
        if self.class_means is not None:
            self.class_means.after_step()

    def _neutral(self, labels: Tensor, memory: Memory) -> Tensor:
        """Which pixels of (B, H, W) labels are not weighed, (B, H, W) bool."""
        if "bank" not in self.score_needs:
            return labels == IGNORE
        neutral = labels.new_ones(IGNORE + 1, dtype=torch.bool)
        torch.lt(memory.counts, self.min_count, out=neutral[: self.num_classes])
        return neutral[labels]

    def _stage(self, bank: str, embedding: Tensor, labels: Tensor) -> None:
        n = self.push_per_image * len(embedding)
        features, labels = sample_per_class(embedding, labels, self.num_classes, n)
        self._staged[bank].append((features, labels))


class RunningClassMean(nn.Module):
    """Divides a quantity by its running mean over the pixels of each class.

    Attributes:
        mean: (C,) float32; 1 for a class that was never seen.
        seen: (C,) bool.
    """

    mean: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        """Start without any class seen.

        Args:
            num_classes: C.
            momentum: factor of the old mean in each update.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.ones(num_classes))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self._staged: list[Tensor] = []

    def forward(self, values: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Divide by the means of former steps and, in training mode, stage the values for the next update.

        Args:
            values: (B, H, W) float.
            labels: (B, H, W) int64 class ids or `IGNORE`.
            mask: (B, H, W) bool, the pixels that count; all must have a label.
        """
        if self.training:
            self.stage(values, labels, mask)
        floor = torch.finfo(values.dtype).eps
        return values / self.mean.clamp(min=floor)[labels.masked_fill(~mask, 0)]

    @torch.no_grad()
    def stage(self, values: Tensor, labels: Tensor, mask: Tensor) -> None:
        """Stage values for the next update; for the arguments see `forward`."""
        self._staged.append(class_sums([values], labels.masked_fill(~mask, IGNORE), len(self.mean)))

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the means of the classes that occurred on any rank. A collective call."""
        if self._staged:
            count, total = all_gather_rows(torch.stack(self._staged)).sum(dim=0)
            occurred = count > 0
            new = total / count.clamp(min=1)
            # A class starts with its first mean.
            step = torch.where(self.seen, 1.0 - self.momentum, 1.0) * occurred
            self.mean.lerp_(new, step)
            self.seen |= occurred
        self._staged = []


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """`torch.cat` without a copy of a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _check_counts(k: int, push_per_image: int, min_count: int, bank_size: int) -> None:
    least = {"K": k, "PUSH_PER_IMAGE": push_per_image, "MIN_COUNT": min_count, "BANK_SIZE": bank_size}
    for key, value in least.items():
        if value < 1:
            raise InputError(f"WEIGHTING.{key}: {value} is too small; set it to 1 or more")
    if min_count > 2 * bank_size:
        raise InputError(
            f"WEIGHTING.MIN_COUNT: the banks never hold {min_count} embeddings of a class; "
            f"set it to at most {2 * bank_size}, twice WEIGHTING.BANK_SIZE"
        )
