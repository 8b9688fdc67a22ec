"""Mean teacher: an EMA teacher labels weak views, the student learns them on mixed strong views."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable

from ..data.augmentation import cutmix, cutmix_masks
from ..losses import cross_entropy
from ..modeling import build_model, ema_decay, update_ema
from ..structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms


@FRAMEWORK_REGISTRY.register()
class MeanTeacher(Framework):
    """The teacher-student scheme of the paper's section 3.1, eq. 1-4, with CutMix.

    L = Ls + alpha * Lu, where Lu is the mean of W * 1[confidence >= threshold] * CE over the valid pixels of the
    strong views. With several strong views of an image it is the mean over them.
    """

    @configurable
    def __init__(
        self,
        *,
        alpha: float,
        threshold: float,
        burn_in: int,
        ema_max_decay: float,
        cutmix: dict[str, Any],
        **framework: Any,
    ) -> None:
        """Put the framework together.

        Args:
            alpha: factor of the unlabeled loss.
            threshold: least confidence of a pseudo-label that trains.
            burn_in: steps of supervised training first.
            ema_max_decay: bound of the teacher's decay.
            cutmix: `prob`, `area` and `ratio` of `cutmix_masks`.
            framework: the arguments of `Framework`.
        """
        super().__init__(**framework)
        self.alpha = alpha
        self.threshold = threshold
        self.burn_in = burn_in
        self.ema_max_decay = ema_max_decay
        self.cutmix = cutmix

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that `cfg` stands for."""
        mixing = cfg.FRAMEWORK.CUTMIX
        return super().from_config(cfg) | {
            "teacher": build_model(cfg),
            "alpha": cfg.FRAMEWORK.ALPHA,
            "threshold": cfg.FRAMEWORK.THRESHOLD,
            "burn_in": cfg.FRAMEWORK.BURN_IN,
            "ema_max_decay": cfg.FRAMEWORK.EMA_DECAY,
            "cutmix": {"prob": mixing.PROB, "area": tuple(mixing.AREA), "ratio": tuple(mixing.RATIO)},
        }

    @property
    def semi_supervised(self) -> bool:
        """Whether the burn-in is over."""
        return self.iteration >= self.burn_in

    def terms(self, batch: Batch, labels: PseudoLabels | None) -> Terms:
        """One student forward over the labeled images and all strong views."""
        labeled = self.stack(batch["labeled"], "image")
        mixed = [] if labels is None else self._mix(self.stack(batch["unlabeled"], "strong"), labels)
        images = self.student.normalize(torch.cat([labeled, *(view for view, _ in mixed)]))
        features = self.student.encode(images)
        logits, embedding = self.student.decode(features, images.shape[-2:])
        count = len(labeled)
        terms, losses = self.supervised(
            batch["labeled"],
            {name: feature[:count] for name, feature in features.items()},
            SemSegOutput(logits[:count], embedding[:count]),
        )
        for number, (view, pseudo) in enumerate(mixed):
            part = slice(count + number * len(view), count + (number + 1) * len(view))
            self.stage_strong(embedding[part], pseudo)
            name = "loss_unsup" if len(mixed) == 1 else f"loss_unsup_{number}"
            terms.append(self._unlabeled_term(name, logits[part], pseudo, self.alpha / len(mixed)))
        return terms, losses

    @torch.no_grad()
    def commit(self) -> None:
        """Move the teacher towards the student, and the staged embeddings into the bank."""
        super().commit()
        steps = max(self.iteration - self.burn_in, 0)
        update_ema(self.labeler, self.student, ema_decay(steps, self.ema_max_decay))

    def _mix(self, strong: torch.Tensor, labels: PseudoLabels) -> list[tuple[torch.Tensor, PseudoLabels]]:
        """CutMix of each strong view, strong (B, V, 3, H, W), with the next image of the batch."""
        views = []
        for view in strong.unbind(1):
            masks = cutmix_masks(len(view), view.shape[-2:], **self.cutmix).to(view.device, non_blocking=True)
            views.append(cutmix(view, labels, masks))
        return views

    def _unlabeled_term(self, name: str, logits: torch.Tensor, pseudo: PseudoLabels, coefficient: float) -> LossTerm:
        return LossTerm(
            name=name,
            logits=logits,
            target=pseudo.labels,
            pixel_loss=cross_entropy,
            mask=(pseudo.confidence >= self.threshold) & (pseudo.labels != IGNORE),
            norm=pseudo.valid,
            coefficient=coefficient,
            weight=None if self.weigher is None else pseudo.weight,
        )
