"""What a framework requires of its config, by what its class says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils import comm

from ..modeling import resolve_norm
from ..utils.errors import InputError, check_name
from ..weighting.scores import chosen_scores

if TYPE_CHECKING:
    from .base import Framework


def check_framework_name(name: str, known: Iterable[str]) -> str:
    """Return the FRAMEWORK.NAME if it is one of the known ones.

    Raises:
        InputError: it is not, or it is a method of the paper's tables that could not be built.
    """
    if name == "CFCG":
        raise InputError(
            "FRAMEWORK.NAME: CFCG cannot be trained, since its equations could not be read (docs/methods.md; "
            "projects/PaperTables has its published figures); set the name of another method"
        )
    return check_name("FRAMEWORK.NAME", name, known)


def check_requirements(framework: type[Framework], cfg: Any) -> None:
    """Reject a config that a framework which trains a segmenter cannot use.

    Args:
        framework: its class attributes say what it requires.
        cfg: complete; `wpl_d2.config.validation.check_config` finds nothing wrong with it.

    Raises:
        InputError: the model is a detector alone; the framework needs other strong views, has no use for those of
            labeled images, or has another head than its own; it does not use the second images or the representation,
            or lacks one; no class has objects that labels could be corrected by; the weights learn from one model's
            labels, but weigh others too; or BN would see a batch of one value.
    """
    name, views = cfg.FRAMEWORK.NAME, cfg.INPUT.STRONG.VIEWS
    if cfg.MODEL.DETECTOR.MODE == "alone":
        raise InputError(
            f"FRAMEWORK.NAME: {name} trains a segmenter, but MODEL.DETECTOR.MODE is alone; set it to Detector"
        )
    if framework.strong_views not in (None, views):
        raise InputError(f"INPUT.STRONG.VIEWS: {views}, but {name} needs {framework.strong_views}; set it to that")
    if framework.strong_labeled != cfg.INPUT.STRONG.LABELED:
        raise InputError(
            f"INPUT.STRONG.LABELED: {cfg.INPUT.STRONG.LABELED}, but {name} learns from "
            f"{'strong' if framework.strong_labeled else 'no strong'} views of labeled images; set it to "
            f"{framework.strong_labeled}"
        )
    check_sem_seg_head(framework, cfg)
    check_paste(framework, cfg)
    has_representation = cfg.MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM > 0
    if has_representation and not framework.has_representation:
        raise InputError(f"MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM: {name} trains no representation; set it to 0")
    if framework.has_representation and not has_representation:
        raise InputError(f"MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM: 0, but {name} needs representations; set it to 256")
    head, own = cfg.MODEL.METHOD_HEAD.NAME, framework.method_head
    if head != own:
        raise InputError(f"MODEL.METHOD_HEAD.NAME: {head!r}, but {name} trains {own or 'none'}; set it to {own!r}")
    if cfg.WEIGHTING.ENABLED and not framework.one_labeler:
        check_one_labeling(cfg)
    refine = cfg.PSEUDO_LABEL.REFINE
    if refine in ("component_vote", "detector") and not cfg.MODEL.DETECTOR.CLASSES:
        raise InputError(f"PSEUDO_LABEL.REFINE: {refine} is for classes with objects; name some in the data set's YAML")
    check_pool_norm(cfg, framework.smallest_batch(cfg))


def check_one_labeling(cfg: Any) -> None:
    """Reject weights that learn from labels as if one model's prediction made all of them.

    Raises:
        InputError: WEIGHTING.KIND has one that learns, or WEIGHTING.PER_CLASS is True.
    """
    name, keys = cfg.FRAMEWORK.NAME, cfg.WEIGHTING
    if learning := [score.kind for score in chosen_scores(keys.KIND) if score.learns]:
        raise InputError(
            f"WEIGHTING.KIND: {learning[0]} learns from one model's labels, but {name} weighs other ones too; set "
            "another one"
        )
    if keys.PER_CLASS:
        raise InputError(
            f"WEIGHTING.PER_CLASS: True has one mean of a class's weights, but {name} weighs several kinds of labels; "
            "set it to False"
        )


def check_merging_head(cfg: Any) -> None:
    """Reject a decoder whose last convolutions cannot be had apart.

    Raises:
        InputError: MODEL.SEM_SEG_HEAD.NAME is such a one, or is not known.
    """
    name = check_name(
        "MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, [key for key, _ in SEM_SEG_HEADS_REGISTRY]
    )
    if not hasattr(SEM_SEG_HEADS_REGISTRY.get(name), "merge"):
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.NAME: {cfg.FRAMEWORK.NAME} takes what a decoder's last convolutions read, and {name} "
            "has no such place; set it to EmbeddingDeepLabV3PlusHead, DPTHead or SegFormerHead"
        )


def check_sem_seg_head(framework: type[Framework], cfg: Any) -> None:
    """Reject a decoder that the framework does not train as a whole.

    Raises:
        InputError: it needs one of its own, or MODEL.SEM_SEG_HEAD.NAME is AllSpark's.
    """
    name, head, own = cfg.FRAMEWORK.NAME, cfg.MODEL.SEM_SEG_HEAD.NAME, framework.sem_seg_head
    if own and head != own:
        raise InputError(f"MODEL.SEM_SEG_HEAD.NAME: {head}, but {name} trains its own; set it to {own}")
    if head == "AllSparkHead" and not own:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.NAME: AllSparkHead, one half of which {name} would leave untrained; set it to "
            "SegFormerHead"
        )


def check_paste(framework: type[Framework], cfg: Any) -> None:
    """Reject second labeled images for a framework that pastes nothing from them.

    Raises:
        InputError: INPUT.PASTE.PROB is above 0.
    """
    if cfg.INPUT.PASTE.PROB and not framework.pastes:
        raise InputError(
            f"INPUT.PASTE.PROB: {cfg.INPUT.PASTE.PROB}, but {cfg.FRAMEWORK.NAME} pastes nothing; set it to 0"
        )


def check_pool_norm(cfg: Any, images: int) -> None:
    """Reject BN of ASPP's image pooling, one value per image and channel, over a batch of one.

    Args:
        cfg: complete.
        images: of the smallest batch that a process computes in training mode.

    Raises:
        InputError: the norm is BN, the batch one image, and no other process adds to it.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    norm = resolve_norm(head.NORM, cfg.MODEL.DEVICE)
    images *= 1 if norm == "BN" else comm.get_world_size()
    if head.ASPP_POOL_NORM and norm in ("BN", "SyncBN", "naiveSyncBN") and images < 2:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM: True, but {norm} of ASPP's pooling cannot train on a batch of one "
            "image; give each process two or more at a time (SOLVER.IMS_PER_BATCH, SOLVER.UNLABELED_IMS_PER_BATCH, by "
            "SOLVER.GRAD_ACCUMULATION), or set MODEL.SEM_SEG_HEAD.NORM GN or this key False"
        )


def local_batch(cfg: Any) -> tuple[int, int]:
    """How many labeled and how many unlabeled images a process gets at a time, in a micro-batch of a step."""
    labeled, unlabeled = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.UNLABELED_IMS_PER_BATCH
    parts = comm.get_world_size() * cfg.SOLVER.GRAD_ACCUMULATION
    return labeled // parts, unlabeled // parts if cfg.DATASETS.UNLABELED else 0


def per_micro_batch(cfg: Any, count: int) -> int:
    """A number of something in a process's batch of a step -> in each of its micro-batches, rounded up."""
    return -(-count // cfg.SOLVER.GRAD_ACCUMULATION)
