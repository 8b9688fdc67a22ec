"""Mending pseudo-labels before they are weighed (PSEUDO_LABEL.REFINE): weights can only leave wrong ones out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import IGNORE, PseudoLabels
from .components import connected_components
from .reliability import best_boxes
from .sampling import at_cells
from .scores import STRIDE, Evidence, Memory, mean_probabilities, region_mean

_TEMPERATURE = 0.1
"""Of the likenesses to prototypes, cosines, which decide among the classes that the probabilities leave open."""


@dataclass(frozen=True)
class Refinement:
    """Gives pseudo-labels another class, and a confidence that goes with it, where it knows better.

    Attributes:
        name: a key of `REFINEMENTS`.
        objects: ids of the classes that have countable objects.
        box_score: least score of a box that can change labels.
    """

    name: str
    objects: tuple[int, ...] = ()
    box_score: float = 0.5

    @property
    def needs(self) -> frozenset[str]:
        """What it cannot do without: "bank", "boxes", "views" (a forward of its own)."""
        return REFINEMENTS[self.name][1]

    @torch.no_grad()
    def __call__(self, evidence: Evidence, memory: Memory | None) -> PseudoLabels:
        """The labels of `evidence.pseudo`, mended; where there was none there is none.

        Args:
            evidence: with all that it needs.
            memory: of the weigher's banks; None without a weigher.
        """
        labels, confidence = REFINEMENTS[self.name][0](self, evidence, memory)
        pseudo = evidence.pseudo
        return pseudo.replace(labels=labels.masked_fill(pseudo.labels == IGNORE, IGNORE), confidence=confidence)

    def is_object(self, labels: Tensor) -> Tensor:
        """Which of (...) int64 class ids or `IGNORE` have countable objects: (...) bool."""
        table = torch.zeros(IGNORE + 1, dtype=torch.bool)
        table[list(self.objects)] = True
        return table.to(labels.device)[labels]


def _augment(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the highest mean probability over the weak view and its augmented versions."""
    confidence, labels = mean_probabilities(evidence).max(dim=1)
    return labels, confidence


def _vote(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """One class for all of a connected component of object classes: that of the highest mean probability in it.

    Components are told apart on every fourth pixel. A pixel whose class changes has the mean as its confidence.
    """
    pseudo = evidence.pseudo
    height, width = pseudo.labels.shape[-2:]
    size = (-(-height // STRIDE), -(-width // STRIDE))
    part = refinement.is_object(at_cells(pseudo.labels, *size))
    numbers = connected_components(part)
    objects = torch.tensor(refinement.objects, device=numbers.device)
    probabilities = at_cells(evidence.logits, *size).float().softmax(dim=1)[:, objects]
    means = torch.stack(
        [region_mean(own, numbers, numbers[0].numel() + 1) for own in probabilities.unbind(dim=1)], dim=1
    )
    mean, best = means.max(dim=1)
    voted, mean = (at_cells(cells, height, width) for cells in (objects[best], mean))
    changed = refinement.is_object(pseudo.labels) & at_cells(part, height, width) & (voted != pseudo.labels)
    return torch.where(changed, voted, pseudo.labels), torch.where(changed, mean, pseudo.confidence)


def _compare(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the highest probability times likeness to its prototype (after ProDA, Zhang et al., CVPR 2021).

    The likeness is a softmax over the classes' cosines / 0.1; a class without a prototype is as like as the mean of the
    others. Cells are compared, and their nearest pixels take the factors over.
    """
    assert memory is not None  # see `needs`
    with torch.autocast(evidence.embedding.device.type, enabled=False):
        cells = F.normalize(evidence.embedding.float(), dim=1)
        likeness = torch.einsum("bdhw,cd->bchw", cells, F.normalize(memory.prototypes, dim=1)) / _TEMPERATURE
    seen = (memory.counts > 0).view(1, -1, 1, 1)
    factor = likeness.masked_fill(~seen, -torch.inf).softmax(dim=1).nan_to_num(0.0)
    factor = torch.where(seen, factor, 1.0 / seen.sum().clamp(min=1))
    height, width = evidence.logits.shape[-2:]
    weighed = evidence.logits.float().softmax(dim=1) * at_cells(factor, height, width)
    confidence, labels = (weighed / weighed.sum(dim=1, keepdim=True)).max(dim=1)
    return labels, confidence


def _detect(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the best box around a pixel of an object class that no box of its own class covers.

    So an object that segmenter and detector name differently is the detector's; the confidence is the box's score.
    """
    assert evidence.detections is not None  # see `needs`
    pseudo = evidence.pseudo
    found = best_boxes(pseudo.labels, evidence.detections)
    changed = refinement.is_object(pseudo.labels)
    changed &= (found.own < refinement.box_score) & (found.any >= refinement.box_score)
    return torch.where(changed, found.classes, pseudo.labels), torch.where(changed, found.any, pseudo.confidence)


REFINEMENTS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], frozenset[str]]] = {
    "tta": (_augment, frozenset({"views"})),
    "component_vote": (_vote, frozenset()),
    "prototype": (_compare, frozenset({"bank"})),
    "detector": (_detect, frozenset({"boxes"})),
}
"""What computes labels and confidence, and what it needs, by the name in PSEUDO_LABEL.REFINE."""
