"""Correction of pseudo-labels before they are weighed (PSEUDO_LABEL.REFINE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import IGNORE, PseudoLabels, among_classes
from .components import connected_components, label_components, on_cells, region_mean
from .evidence import Evidence, Memory
from .reliability import best_boxes
from .sampling import at_cells
from .scores import mean_probabilities

_TEMPERATURE = 0.1
"""Of the softmax over cosines with prototypes in `_compare`."""


@dataclass(frozen=True)
class Refinement:
    """Changes the classes of some pseudo-labels, and their confidence with them.

    Attributes:
        name: a key of `REFINEMENTS`.
        objects: ids of the classes of countable objects.
        box_score: least score of a box that can change labels.
    """

    name: str
    objects: tuple[int, ...] = ()
    box_score: float = 0.5

    @property
    def needs(self) -> frozenset[str]:
        """What it needs beyond the prediction, as in `Score`."""
        return REFINEMENTS[self.name][1]

    @torch.no_grad()
    def __call__(self, evidence: Evidence, memory: Memory | None) -> PseudoLabels:
        """The pseudo-labels with new labels and confidence; a pixel without a label gets none.

        Args:
            evidence: with all that `needs` names.
            memory: the weigher's banks; None without a weigher.
        """
        labels, confidence = REFINEMENTS[self.name][0](self, evidence, memory)
        pseudo = evidence.pseudo
        return pseudo.replace(labels=labels.masked_fill(pseudo.labels == IGNORE, IGNORE), confidence=confidence)

    def object_ids(self, device: torch.device) -> Tensor:
        """(K,) int64, the ids of the classes of countable objects."""
        return torch.tensor(self.objects).to(device, non_blocking=True)


def _augment(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the highest probability, averaged over the weak view and its augmented versions."""
    confidence, labels = mean_probabilities(evidence).max(dim=1)
    return labels, confidence


def _vote(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the highest mean probability in a connected component of object classes, for the whole component.

    Components are found on every fourth pixel. A pixel whose class changes gets that mean as its confidence.
    """
    part = among_classes(on_cells(evidence.pseudo.labels), refinement.objects)
    objects = refinement.object_ids(part.device)
    probabilities = on_cells(evidence.logits).float().softmax(dim=1)[:, objects]
    mean, best = _component_means(probabilities, connected_components(part)).max(dim=1)
    return _rename(refinement, evidence.pseudo, part, objects[best], mean)


def _component_means(maps: Tensor, numbers: Tensor) -> Tensor:
    """The means of maps (B, K, h, w) over each cell's component, by its number, (B, h, w)."""
    return torch.stack([region_mean(own, numbers, numbers[0].numel() + 1) for own in maps.unbind(dim=1)], dim=1)


def _rename(
    refinement: Refinement, pseudo: PseudoLabels, part: Tensor, classes: Tensor, confidence: Tensor
) -> tuple[Tensor, Tensor]:
    """Give object pixels in cells of `part` (B, h, w) bool their cell's class, and its confidence where it is new."""
    renamed, part, confidence = (at_cells(cells, *pseudo.labels.shape[-2:]) for cells in (classes, part, confidence))
    changed = among_classes(pseudo.labels, refinement.objects) & part & (renamed != pseudo.labels)
    return torch.where(changed, renamed, pseudo.labels), torch.where(changed, confidence, pseudo.confidence)


def _compare(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the highest probability times similarity to its prototype (after ProDA, Zhang et al., CVPR 2021).

    The similarity is a softmax over the classes' cosines / 0.1; a class without a prototype gets the mean of the
    others. It is computed for the embedding's cells, and pixels take that of their nearest cell.
    """
    assert memory is not None  # see `needs`
    with torch.autocast(evidence.embedding.device.type, enabled=False):
        cells = F.normalize(evidence.embedding.float(), dim=1)
        similarity = torch.einsum("bdhw,cd->bchw", cells, F.normalize(memory.prototypes, dim=1)) / _TEMPERATURE
    seen = (memory.counts > 0).view(1, -1, 1, 1)
    factor = similarity.masked_fill(~seen, -torch.inf).softmax(dim=1).nan_to_num(0.0)
    factor = torch.where(seen, factor, 1.0 / seen.sum().clamp(min=1))
    height, width = evidence.logits.shape[-2:]
    weighed = evidence.logits.float().softmax(dim=1) * at_cells(factor, height, width)
    confidence, labels = (weighed / weighed.sum(dim=1, keepdim=True)).max(dim=1)
    return labels, confidence


def _detect(refinement: Refinement, evidence: Evidence, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """The class of the boxes around an object, where most of it is in boxes of another class and in none of its own.

    An object is a connected component of one class, found on every fourth pixel; of each pixel's boxes the best one
    counts. The confidence of an object that changes its class is the mean of these boxes' scores over it.
    """
    assert evidence.detections is not None  # see `needs`
    labels = on_cells(evidence.pseudo.labels)
    own, best, classes = (on_cells(found) for found in best_boxes(evidence.pseudo.labels, evidence.detections))
    objects = refinement.object_ids(labels.device)
    numbers = label_components(labels, objects)
    other = torch.where((own < refinement.box_score) & (best >= refinement.box_score), classes, -1)
    share, kind = _component_means((other.unsqueeze(1) == objects.view(-1, 1, 1)).float(), numbers).max(dim=1)
    score = _component_means(best.unsqueeze(1), numbers).squeeze(1)
    return _rename(refinement, evidence.pseudo, (numbers > 0) & (share > 0.5), objects[kind], score)


REFINEMENTS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], frozenset[str]]] = {
    "tta": (_augment, frozenset({"views"})),
    "component_vote": (_vote, frozenset()),
    "prototype": (_compare, frozenset({"bank"})),
    "detector": (_detect, frozenset({"boxes"})),
}
"""By the name in PSEUDO_LABEL.REFINE: a function that returns labels and confidence, and its `Score.needs`."""
