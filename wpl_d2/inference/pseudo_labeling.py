"""Labeling whole images by a trained model, to train another one: as they are, without opening any mask."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import SequentialSampler
from tqdm import tqdm

from ..data import EvalMapper, counted_seed
from ..data.detection_cache import load_detection_cache
from ..data.loader import build_test_loader
from ..data.pseudo_label_store import PseudoLabelStore
from ..frameworks import Framework
from ..frameworks.pseudo_labels import build_refinement, gather_evidence, make_pseudo_labels, predict
from ..modeling import UnifiedSegDet
from ..structures import IGNORE, Detections
from ..utils.errors import InputError
from ..weighting import Evidence
from .build import build_predict

logger = logging.getLogger(__name__)

Records = Sequence[dict[str, Any]]


@torch.no_grad()
def label_images(cfg: Any, framework: Framework, records: Records, store: PseudoLabelStore) -> None:
    """Label images by a framework's pseudo-labeler, and store the labels and their weights. All processes must call it.

    The processes divide the images. Those that the store has are left out, so that a run that was stopped goes on;
    images that cannot be read get no labels. With RPPI the reliable pixels of all images first join the memory bank.

    Args:
        cfg: a complete config; its TEST.INFERENCE says how an image is segmented.
        framework: trained, with its memory bank.
        records: dataset dicts of unlabeled images. No mask is opened.
        store: on a disk that all machines share.

    Raises:
        InputError: the cached detections do not fit, or the labels cannot be written.
    """
    model, weigher, refinement = framework.pseudo_labeler, framework.weigher, build_refinement(cfg)
    segment = build_predict(cfg, model.segment)
    with inference_context(framework):
        if weigher is not None and weigher.box_score is not None:
            _add_reliable(cfg, framework, records)
        own = [record for record in records[comm.get_rank() :: comm.get_world_size()] if record not in store]
        for item in read_images(cfg, own, "pseudo-labels", boxes=True):
            if isinstance(item["image"], InputError):
                logger.warning("without pseudo-labels: %s", item["image"])
                continue
            image = item["image"][None].to(model.device)
            evidence = whole_image_evidence(model, item, segment(image.float()))
            pseudo = make_pseudo_labels(evidence, refinement, weigher)
            weight = None if weigher is None else pseudo.weight[0].cpu().numpy()
            store.write(item, pseudo.labels[0].cpu().numpy(), weight)
    comm.synchronize()


def _add_reliable(cfg: Any, framework: Framework, records: Records) -> None:
    """Push pixels on which segmenter and detector agree to the memory bank, equally on every rank."""
    model, weigher, refinement = framework.pseudo_labeler, framework.weigher, build_refinement(cfg)
    assert weigher is not None
    rank, world = comm.get_rank(), comm.get_world_size()
    # Some images twice, so that all ranks have equally many.
    own = [records[(start + rank) % len(records)] for start in range(0, len(records), world)]
    torch.manual_seed(counted_seed(cfg.SEED, "reliable", rank))
    for item in read_images(cfg, own, "reliable pixels", boxes=True):
        if isinstance(item["image"], InputError):
            nothing = torch.full((1, 1, 1), IGNORE, device=model.device)
            embedding = torch.zeros(1, weigher.unlabeled_bank.ring.shape[2], 1, 1, device=model.device)
            weigher.stage_reliable(embedding, nothing, nothing != IGNORE)
        else:
            evidence = whole_image_evidence(model, item)
            pseudo = make_pseudo_labels(evidence, refinement, weigher)
            weigher.stage_reliable(evidence.embedding, pseudo.labels, pseudo.reliable)
        weigher.after_step()
    counts = weigher.unlabeled_bank.counts
    logger.info("RPPI: %d reliable pixels of %d classes are in the memory bank", counts.sum(), (counts > 0).sum())


def whole_image_evidence(model: UnifiedSegDet, item: Mapping[str, Any], logits: Tensor | None = None) -> Evidence:
    """The pseudo-labels of an item of `EvalMapper`, and all that can tell how good they are.

    Args:
        model: the pseudo-labeler, in evaluation mode.
        item: cached detections in it take the place of the model's own.
        logits: (1, C, H, W) from which the labels are; by default those of one forward of the image.
    """
    prediction = predict(model, model.normalize(item["image"][None]))
    if logits is not None:
        prediction = prediction._replace(output=prediction.output._replace(logits=logits))
    found = _detect(model, item, prediction.features)
    return gather_evidence(model, prediction, detections=None if found is None else [found])


def _detect(model: UnifiedSegDet, item: Mapping[str, Any], features: dict[str, Tensor]) -> Detections | None:
    """All detections in an image: the cached ones, else the model's own; None without either."""
    if "detections" in item:
        return item["detections"].to(model.device)
    size = (item["image"].shape[-2], item["image"].shape[-1])
    return model.detect(features, [size])[0] if model.has_detector else None


def read_images(cfg: Any, records: Records, what: str, boxes: bool = False) -> Iterator[dict[str, Any]]:
    """Items of `EvalMapper` for images, in their order; in place of an image that cannot be read its error.

    Args:
        cfg: of the training.
        records: dataset dicts without masks.
        what: for the progress bar.
        boxes: whether to add the cached detections of MODEL.DETECTOR.MODE cached.
    """
    if not records:  # there is no such loader
        return
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("stuff_classes")
    cache = load_detection_cache(cfg, classes, records) if boxes else None
    mapper = EvalMapper(lenient=True, cache=cache)
    loader = build_test_loader(records, mapper, cfg.DATALOADER.NUM_WORKERS, SequentialSampler(records))
    bar = tqdm(loader, what, unit="image", mininterval=5, disable=not comm.is_main_process())
    for (item,) in bar:
        yield item
