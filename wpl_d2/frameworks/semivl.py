"""SemiVL: UniMatch on CLIP, whose frozen copy guides the student on unlabeled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..config.layers import value_of
from ..modeling import MaskCLIPBackbone, copy_model
from ..structures import IGNORE, LossTerm, PseudoLabels
from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Items
from .loss_terms import by_image
from .mixing import cutmix
from .pseudo_labels import Prediction, gather_evidence
from .unimatch import UniMatch

_NETWORK = {"MODEL.BACKBONE.NAME": "build_maskclip_backbone", "MODEL.SEM_SEG_HEAD.NAME": "VLGHead"}


@FRAMEWORK_REGISTRY.register()
class SemiVL(UniMatch):
    """SemiVL (Hoyer et al., ECCV 2024): `UniMatch`, and the loss of what CLIP by itself labels.

    L = UniMatch's + alpha * lambda * (g1 / 4 + g2 / 4 + gf / 2), where lambda falls linearly from `guidance_weight` to
    0. g1, g2 and gf are of the logits of s1, s2 and fp: the sum of W * CE by CLIP's labels with a confidence of at
    least `guidance_conf`, over the number of all pixels. CLIP's encoder, the guide, is the student's as MODEL.WEIGHTS
    gives it, and stays so; a class's logit is 100 times the cosine of its most similar concept (MODEL.VLG.CONCEPTS).

    W are the weights of CLIP's labels by the student's embeddings, CLIP's of the image before the similarity with texts
    (the paper's supplement 7); UniMatch's terms have none, unless `weighted` names them too.

    With `by_mean`, as published on Cityscapes, s1, s2 and fp of an image are multiplied by the mean confidence of its
    valid pixels, and FRAMEWORK.THRESHOLD is 0. In the published code padding trains there, and with several images in a
    process's batch the mean of each is multiplied by the loss of all: here neither is so.

    Differences to the published code beside UniMatch's, in brackets: images that the patch does not divide are resized
    to the nearest size that it does (padded at the right and at the bottom, and the logits of both resized to the
    crop's size), with antialiasing in an evaluation, and logits back without aligned corners; position embeddings keep
    CLIP's grid and are interpolated in each forward, with antialiasing (are trained on the crop's grid); LN adds CLIP's
    1e-5 to variances (1e-6); and the ResNet beside CLIP on Cityscapes is DeepLab's, with a stem of 64, 64 and 128
    channels, normalized as CLIP's images are (32, 32 and 64; as ImageNet's).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`, and the guidance of each counts
    by its share of the valid pixels.

    Attributes:
        guide: CLIP's image encoder.

    Args:
        guide: of the architecture of the student's, without skips.
        guidance_weight: lambda in the first step.
        guidance_conf: least confidence of a label of CLIP that trains.
        max_iter: the step in which lambda would be 0.
        by_mean: see above.
        weighted: which terms the weights apply to: "guidance", "consistency".
        unimatch: the arguments of `UniMatch`.
    """

    one_labeler = False

    @configurable
    def __init__(
        self,
        *,
        guide: MaskCLIPBackbone,
        guidance_weight: float,
        guidance_conf: float,
        max_iter: int,
        by_mean: bool,
        weighted: Sequence[str],
        **unimatch: Any,
    ) -> None:
        super().__init__(**unimatch)
        self.guide = guide.requires_grad_(False)
        self.guidance_weight = guidance_weight
        self.guidance_conf = guidance_conf
        self.max_iter = max_iter
        self.by_mean = by_mean
        self.weighted = weighted
        self.reset()

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.FRAMEWORK.SEMIVL
        return super().from_config(cfg) | {
            "guide": MaskCLIPBackbone(cfg.MODEL.TIMM.NAME, cfg.MODEL.MASKCLIP.DIM, in_channels=len(cfg.INPUT.CHANNELS)),
            "guidance_weight": keys.GUIDANCE_WEIGHT,
            "guidance_conf": keys.GUIDANCE_CONF,
            "max_iter": cfg.SOLVER.MAX_ITER,
            "by_mean": keys.CONFIDENCE == "mean",
            "weighted": keys.WEIGHTED,
        }

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        for key, name in _NETWORK.items():
            if value_of(cfg, key) != name:
                raise InputError(f"{key}: {value_of(cfg, key)}, but SemiVL needs CLIP; set it to {name}")

    @override
    def reset(self) -> None:
        """Copy the student's encoder to the guide, as after loading its weights."""
        super().reset()
        copy_model(self.guide.body, self.student.backbone.body)

    @override
    def unlabeled_terms(
        self,
        items: Items,
        prediction: Prediction,
        perturbed: Tensor,
        views: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> list[LossTerm]:
        terms = super().unlabeled_terms(items, prediction, perturbed, views, masks)
        labels = self.make_guidance(items, prediction)
        mixed = [cutmix(view, labels, mask)[1] for view, mask in zip(views, masks, strict=True)]
        return terms + [self._guidance(*pair) for pair in zip(terms, [labels, *mixed], strict=True)]

    @override
    def consistency(self, name: str, logits: Tensor, pseudo: PseudoLabels, coefficient: float) -> LossTerm:
        if "consistency" not in self.weighted:
            pseudo = pseudo.replace(weight=torch.ones_like(pseudo.weight))
        term = super().consistency(name, logits, pseudo, coefficient)
        return by_image(term, pseudo) if self.by_mean else term

    @torch.no_grad()
    def make_guidance(self, items: Items, prediction: Prediction) -> PseudoLabels:
        """CLIP's labels of the items' weak views, weighed by the student's prediction on these."""
        embedding = self.guide(prediction.images)["res5"]
        head: Any = self.student.sem_seg_head
        logits = head.clip_logits(embedding, prediction.images.shape[-2:])
        labels = PseudoLabels.from_logits(logits, self.stack(items, "valid"))
        if self.weigher is not None and "guidance" in self.weighted:
            detections = self._detections(items, prediction) if "boxes" in self.weigher.score_needs else None
            evidence = gather_evidence(self.student, prediction, labels.valid, detections)
            labels = labels.replace(weight=self.weigher.weight(replace(evidence, pseudo=labels)))
            if (pseudo := self.last_step.pseudo_labels) is not None and "consistency" not in self.weighted:
                self.record(items, pseudo.replace(weight=labels.weight))  # the weights that train
        selected = (labels.confidence >= self.guidance_conf) & labels.valid
        share = selected.sum() / labels.valid.sum().clamp(min=1)
        self.last_step.scalars["guidance/selected"] = share
        return labels

    def _guidance(self, term: LossTerm, labels: PseudoLabels) -> LossTerm:
        """The loss of CLIP's labels by the logits of another term."""
        falling = self.guidance_weight * max(0.0, 1 - self.iteration / self.max_iter)
        return replace(
            term,
            name="loss_guidance",
            target=labels.labels,
            mask=(labels.confidence >= self.guidance_conf) & (labels.labels != IGNORE),
            norm=torch.ones_like(labels.valid),
            coefficient=2 * falling * term.coefficient,  # UniMatch's are halved
            weight=labels.weight,
        )
