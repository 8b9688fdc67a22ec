"""PrevMatch: UniMatch, whose student also learns what past states of itself predict together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..modeling import UnifiedSegDet, copy_model
from ..structures import LossTerm, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Items, Terms
from .loss_terms import by_image, consistency_term
from .mixing import cutmix
from .pseudo_labels import Prediction, gather_evidence, make_pseudo_labels, predict
from .unimatch import UniMatch


@FRAMEWORK_REGISTRY.register()
class PrevMatch(UniMatch):
    """PrevMatch (Shin et al., 2024): UniMatch with a pool of past students.

    L = (Lx + Lu + l(t) * Lp) / (2 + l(t)), where Lu are UniMatch's losses on unlabeled images, with `alpha`, and Lp the
    same with other labels: those of the sum of the logits of 1 to `members` students of the pool, drawn in each step,
    with weights of a Dirichlet(1) distribution, from `past_threshold` on. l rises from 0 to 1 at the middle of the
    training and falls to 0 at its end; with an empty pool it is 0. The weights of both kinds of labels come from the
    student's embeddings; its own labels alone fill the memory bank.

    Differences to the published code, in brackets, and those of `UniMatch`: a student joins the pool in every
    `push_steps` steps (after an epoch with the best figure on the validation images, which a training must not learn
    from); l moves with each step (epoch); and with `by_image`, the loss of an image's pixels is multiplied by the mean
    confidence of its valid ones (that of all images of a process by the sum of these means).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `UniMatch`, and the students that are drawn.

    Args:
        pool: places for past students.
        members: of these, the most that label together.
        past_threshold: least confidence of their labels that train.
        by_image: whether their losses are multiplied by an image's mean confidence.
        push_steps: steps after each of which the student joins the pool.
        max_iter: steps of the training.
        framework: the arguments of `UniMatch`.
    """

    one_labeler = False

    @configurable
    def __init__(
        self,
        *,
        pool: list[UnifiedSegDet],
        members: int,
        past_threshold: float,
        by_image: bool,
        push_steps: int,
        max_iter: int,
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.pool = nn.ModuleList(pool).requires_grad_(False).eval()
        self.members = members
        self.past_threshold = past_threshold
        self.by_image = by_image
        self.push_steps = push_steps
        self.max_iter = max_iter

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        arguments, keys = super().from_config(cfg), cfg.FRAMEWORK.PREVMATCH
        return arguments | {
            "pool": [deepcopy(arguments["student"]) for _ in range(keys.POOL_SIZE)],
            "members": keys.MEMBERS,
            "past_threshold": keys.THRESHOLD,
            "by_image": keys.BY_IMAGE,
            "push_steps": keys.PUSH_STEPS,
            "max_iter": cfg.SOLVER.MAX_ITER,
        }

    @override
    def train(self, mode: bool = True) -> PrevMatch:
        super().train(mode)
        if hasattr(self, "pool"):  # not yet in the parent's constructor
            self.pool.eval()
        return self

    @property
    def past_students(self) -> int:
        """How many places of the pool are taken in the current step."""
        return min(len(self.pool), self.iteration // self.push_steps)

    @property
    def past_factor(self) -> float:
        """l(t)."""
        return 1 - abs(2 * self.iteration / self.max_iter - 1) if self.past_students else 0.0

    def random_members(self) -> dict[int, float]:
        """A step's random choices: places in the pool, and the weights of their students."""
        count = min(int(torch.randint(1, self.members + 1, ())), self.past_students)
        weights = torch.distributions.Dirichlet(torch.ones(count), validate_args=False).sample()
        places = torch.randperm(self.past_students)[:count]
        return dict(zip(places.tolist(), weights.tolist(), strict=True))

    @override
    def terms(self, batch: Batch) -> Terms:
        # First, since the weigher draws for labeled images too.
        self._members = self.random_members() if self.past_students and self.unlabeled(batch) else {}
        terms, losses = super().terms(batch)
        scale = 2 / (2 + self.past_factor)
        return [replace(term, coefficient=scale * term.coefficient) for term in terms], losses

    @override
    def unlabeled_terms(
        self,
        items: Items,
        prediction: Prediction,
        perturbed: Tensor,
        views: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> list[LossTerm]:
        past = self._past_prediction(prediction) if self.past_students else None
        terms = super().unlabeled_terms(items, prediction, perturbed, views, masks)
        if past is None:
            return terms
        detections = self._detections(items, prediction) if "boxes" in self.needs else None
        evidence = gather_evidence(self.student, past, self.stack(items, "valid"), detections)
        labels = make_pseudo_labels(evidence, self.refinement, self.weigher)
        mixed = [cutmix(view, labels, mask)[1] for view, mask in zip(views, masks, strict=True)]
        return terms + [self.past_term(*pair) for pair in zip(terms, [labels, *mixed], strict=True)]

    def past_term(self, own: LossTerm, pseudo: PseudoLabels) -> LossTerm:
        """The loss of the same logits as another term's, by labels of past students."""
        coefficient = own.coefficient * self.past_factor
        term = consistency_term(own.name, own.logits, pseudo, self.past_threshold, coefficient)
        return by_image(term, pseudo) if self.by_image else term

    @torch.no_grad()
    def _past_prediction(self, prediction: Prediction) -> Prediction:
        """The student's prediction, with the logits of past students together."""
        logits = torch.zeros_like(prediction.output.logits)
        for place, weight in self._members.items():
            student = self.pool[place]
            assert isinstance(student, UnifiedSegDet)
            logits = logits + weight * predict(student, prediction.images).output.logits
        return prediction._replace(output=prediction.output._replace(logits=logits))

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        pushed, rest = divmod(self.iteration + 1, self.push_steps)
        if rest == 0:
            copy_model(self.pool[(pushed - 1) % len(self.pool)], self.student)
