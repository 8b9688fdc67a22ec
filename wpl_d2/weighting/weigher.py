"""The weigher: what the pseudo-label weights remember (two memory banks) and the policy that makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, check_name
from ..structures import IGNORE, ClassBoxes, PseudoLabels
from .gather import gathered
from .memory_bank import MemoryBank, pooled_prototypes
from .reliability import reliable_mask
from .sampling import at_cells, sample_per_class
from .similarity import RESOLUTIONS, SIMILARITIES, build_similarity, center

WEIGHT_FORMS = ("paper", "plus_one")
_CENTERED = "_centered"
SIMILARITY_MAPS = tuple(name + suffix for suffix in ("", _CENTERED) for name in SIMILARITIES)
"""The names of what `PixelWeigher.similarity_maps` returns."""


class PixelWeigher(nn.Module):
    """PPW: weighs pseudo-labels by their pixels' likeness to class prototypes (paper, section 3.3).

    A step reads the banks (`resolve`, `weight`) and stages embeddings for them (`stage_labeled`,
    `stage_reliable`); `commit` stores what was staged, on every rank the same. Nothing carries a gradient.

    Attributes:
        labeled_bank: embeddings of labeled pixels.
        unlabeled_bank: embeddings of reliable pixels of unlabeled images.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        k: int = 5,
        similarity: str = "rank",
        centered: bool = False,
        weight_form: str = "paper",
        resolution: str = "stride4",
        align_corners: bool = False,
        bank_size: int = 256,
        push_per_image: int = 1,
        min_count: int = 16,
        labeled_conf: float = 0.95,
        reliable_conf: float = 0.95,
    ) -> None:
        """A weigher with empty banks.

        Args:
            num_classes: number of classes, C.
            dim: channels of the embedding, D.
            k: size of the rank sets.
            similarity: "rank", "cosine" or "euclidean".
            centered: subtract the mean prototype from pixel and prototype before they are compared.
            weight_form: "paper": W = s; "plus_one": W = s + 1, s being the similarity in [0, 1].
            resolution: "stride4" or "full", see `rank_overlap`.
            align_corners: of the upsampling that "full" does.
            bank_size: embeddings per class in each bank.
            push_per_image: random pixels per class staged by one call, per image of the call.
            min_count: a class with fewer embeddings, both banks together, leaves its weights neutral.
            labeled_conf: labeled pixels are staged above this confidence.
            reliable_conf: pseudo-labels are reliable from this confidence on.

        Raises:
            InputError: a name that does not exist or a number out of its range.
        """
        super().__init__()
        check_name("WEIGHTING.SIMILARITY", similarity, SIMILARITIES)
        check_name("WEIGHTING.TOPK_RES", resolution, RESOLUTIONS)
        check_name("WEIGHTING.WEIGHT_FORM", weight_form, WEIGHT_FORMS)
        _check_counts(k, push_per_image, min_count, bank_size)
        if similarity == "rank" and k >= dim:
            raise InputError(
                f"WEIGHTING.K: {k}, but an embedding has {dim} channels, and which are the most active of all says "
                "nothing; set it below MODEL.SEM_SEG_HEAD.CONVS_DIM"
            )
        self.num_classes = num_classes
        self.k = k
        self.similarity = similarity
        self.centered = centered
        self.weight_form = weight_form
        self.resolution = resolution
        self.align_corners = align_corners
        self.push_per_image = push_per_image
        self.min_count = min_count
        self.labeled_conf = labeled_conf
        self.reliable_conf = reliable_conf
        self.labeled_bank = MemoryBank(num_classes, dim, bank_size)
        self.unlabeled_bank = MemoryBank(num_classes, dim, bank_size)
        # Per bank, the (features, labels) of each call since the last commit. Not lasting, hence no buffers.
        self._staged: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.discard()

    @classmethod
    def from_config(cls, cfg: Any) -> PixelWeigher:
        """The weigher that a config with the keys of `wpl_d2.config` describes."""
        head, weighting = cfg.MODEL.SEM_SEG_HEAD, cfg.WEIGHTING
        return cls(
            num_classes=head.NUM_CLASSES,
            dim=head.CONVS_DIM,
            k=weighting.K,
            similarity=weighting.SIMILARITY,
            centered=weighting.CENTERED,
            weight_form=weighting.WEIGHT_FORM,
            resolution=weighting.TOPK_RES,
            align_corners=head.ALIGN_CORNERS,
            bank_size=weighting.BANK_SIZE,
            push_per_image=weighting.PUSH_PER_IMAGE,
            min_count=weighting.MIN_COUNT,
            labeled_conf=weighting.LABELED_CONF,
            reliable_conf=cfg.RPPI.CONF,
        )

    @property
    def neutral_maximum(self) -> float:
        """The largest weight of the form in use: that of a pixel whose label is known to be right."""
        return 2.0 if self.weight_form == "plus_one" else 1.0

    def resolve(self, pseudo: PseudoLabels, embedding: Tensor, boxes: ClassBoxes | None) -> PseudoLabels:
        """Fill in `reliable`, if there are boxes, and `weight`.

        Args:
            pseudo: labels of B unmixed weak views.
            embedding: (B, D, h, w) float, of the same views.
            boxes: the detector's, one pair an image, in pixels of the labels; None without a detector.
        """
        weight = self.weight(embedding, pseudo.labels)
        if boxes is None:
            return pseudo.replace(weight=weight)
        reliable = reliable_mask(pseudo.labels, pseudo.confidence, boxes, self.reliable_conf) & pseudo.valid
        return pseudo.replace(weight=weight, reliable=reliable)

    @torch.no_grad()
    def weight(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """The factor of each pixel's loss.

        Args:
            embedding: (B, D, h, w) float.
            labels: (B, H, W) int64 class ids or `IGNORE`.

        Returns:
            (B, H, W) float32: the similarity ("paper") or the similarity + 1 ("plus_one"); 1 in both forms
            where there is no label and for classes with fewer than `min_count` embeddings.
        """
        prototypes, counts = self._prototypes()
        weight = self._likeness(self.similarity, embedding, labels, prototypes, counts, self.centered)
        if self.weight_form == "plus_one":
            weight = weight + 1.0
        none = labels == IGNORE
        known = (counts >= self.min_count)[labels.masked_fill(none, 0)] & ~none
        return weight.masked_fill(~known, 1.0)

    @torch.no_grad()
    def similarity_maps(self, embedding: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Every similarity that could weigh a pixel, plain and with the mean prototype subtracted, to compare them.

        Args:
            embedding: (B, D, h, w) float.
            labels: (B, H, W) int64 class ids or `IGNORE`.

        Returns:
            (B, H, W) float32 in [0, 1], 0 where there is no label, by each name in `SIMILARITY_MAPS`.
        """
        prototypes, counts = self._prototypes()
        return {
            name: self._likeness(
                name.removesuffix(_CENTERED), embedding, labels, prototypes, counts, name.endswith(_CENTERED)
            )
            for name in SIMILARITY_MAPS
        }

    def _likeness(
        self, name: str, embedding: Tensor, labels: Tensor, prototypes: Tensor, counts: Tensor, centered: bool
    ) -> Tensor:
        if centered:
            embedding, prototypes = center(embedding, prototypes, counts > 0)
        similarity = build_similarity(name, self.k)
        return similarity(embedding, labels, prototypes, resolution=self.resolution, align_corners=self.align_corners)

    @torch.no_grad()
    def stage_labeled(self, embedding: Tensor, logits: Tensor, target: Tensor) -> None:
        """Stage labeled pixels that the model labels rightly, with more than `labeled_conf`.

        Args:
            embedding: (B, D, h, w) float.
            logits: (B, C, H, W) float.
            target: (B, H, W) int64, the true labels, `IGNORE` where there is none.
        """
        # Only the embedding's cells can be staged, so only they need probabilities.
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
    def commit(self) -> None:
        """Push what was staged on all ranks, in rank order, so that every rank's banks stay the same.

        Each rank must have staged as often and from as many images. A collective call.
        """
        for name, bank in (("labeled", self.labeled_bank), ("unlabeled", self.unlabeled_bank)):
            if self._staged[name]:
                features, labels = (torch.cat(rows) for rows in zip(*self._staged[name], strict=True))
                bank.push(gathered(features), gathered(labels))
        self.discard()

    def discard(self) -> None:
        """Drop what was staged, as after a step whose loss was not finite."""
        self._staged = {"labeled": [], "unlabeled": []}

    def _stage(self, bank: str, embedding: Tensor, labels: Tensor) -> None:
        n = self.push_per_image * len(embedding)
        features, labels = sample_per_class(embedding, labels, self.num_classes, n)
        self._staged[bank].append((features.float(), labels))

    def _prototypes(self) -> tuple[Tensor, Tensor]:
        return pooled_prototypes([self.labeled_bank, self.unlabeled_bank])


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
