"""What a report needs of the data and of the model, gathered while both are at hand and kept in the run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import EvalMapper
from ..data.image_io import read_record_mask
from ..data.label_statistics import count_labels
from ..data.loader import Records, load_records
from ..data.mappers import read_labels
from ..data.pixel_values import RGB
from ..data.windows import image_name
from ..evaluation.image_counts import FILE, ImageCounts
from ..frameworks import Framework
from ..frameworks.pseudo_labels import predict
from ..inference.build import build_inference, evaluated_crop
from ..inference.sliding_window import center_window
from ..structures import IGNORE
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, replace_file, write_text
from ..visualization import heatmap, overlay, render
from ..visualization.draw import Picture, to_image
from ..visualization.preview import weigh_prediction
from ..weighting import PixelWeigher

FOLDER = "report"
"""Of `OUTPUT_DIR`; holds `EVIDENCE` and the pictures that it names."""
EVIDENCE = "evidence.json"

_LONGER_SIDE = 320  # of a picture, in pixels
_COUNTED = 500
"""The most labeled masks that are read for their counts, spread evenly over the list."""
_OF_EACH_KIND = 3
_RIGHT, _WRONG = (238, 238, 238), (214, 0, 110)

Item = TypeVar("Item")


def gather_evidence(cfg: Any, framework: Framework) -> None:
    """Count labels and draw the best, median and worst images of the first test set; the main process calls it.

    Args:
        cfg: of a training whose data sets are registered; its last evaluation left `ImageCounts`, or there are no
            pictures.
        framework: as the training left it.

    Raises:
        InputError: a list cannot be read, or the folder cannot be written.
    """
    folder = Path(cfg.OUTPUT_DIR) / FOLDER
    with clear_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "labeled": _count_labels(cfg),
        "unlabeled": {"lists": list(cfg.DATASETS.UNLABELED), "images": len(_records(cfg, "UNLABELED", labels=False))},
        "examples": [],
    }
    if cfg.DATASETS.TEST:
        name, which = cfg.DATASETS.TEST[0], next(iter(framework.eval_models()))
        metadata = MetadataCatalog.get(name)
        found |= {"test": name, "model": which, "classes": list(metadata.stuff_classes)}
        found["colors"] = [list(map(int, color)) for color in metadata.stuff_colors]
        counts = ImageCounts.load(Path(cfg.OUTPUT_DIR) / "inference" / name / which / FILE)
        if counts is not None:
            found["examples"] = _draw_examples(cfg, framework, counts, folder)
    write_text(folder / EVIDENCE, json.dumps(found))


def _records(cfg: Any, key: str, labels: bool = True) -> Records:
    lists = (load_records(name, f"DATASETS.{key}", labels=labels) for name in cfg.DATASETS[key])
    return list(chain.from_iterable(lists))


def _count_labels(cfg: Any) -> dict[str, Any]:
    """The labeled pixels and images of each class."""
    records, classes = _records(cfg, "TRAIN"), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    chosen = _spread(records, _COUNTED)
    counts = np.array([count_labels(read_record_mask(record), classes)[:-1] for record in chosen], dtype=np.int64)
    return {
        "lists": list(cfg.DATASETS.TRAIN),
        "images": len(records),
        "counted": len(chosen),
        "pixels": counts.sum(axis=0).tolist(),
        "images_with": (counts > 0).sum(axis=0).tolist(),
    }


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, spread evenly."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def choose_examples(scores: NDArray[np.float64], of_each: int = _OF_EACH_KIND) -> list[tuple[str, int, int]]:
    """The worst, median and best images, turn by turn, so that the first of any number of them are of all kinds.

    Args:
        scores: (N,) of the images; NaN leaves one out.
        of_each: how many of each kind.

    Returns:
        kind, index, and rank from 1 for the best; no image twice.
    """
    order = [int(index) for index in np.argsort(-scores, kind="stable") if np.isfinite(scores[index])]
    middle = len(order) // 2
    chosen: dict[int, str] = {}
    for turn in range(of_each):
        near_median = middle + (turn + 1) // 2 * (-1 if turn % 2 else 1)
        for kind, place in (("worst", len(order) - 1 - turn), ("median", near_median), ("best", turn)):
            if 0 <= place < len(order):
                chosen.setdefault(place, kind)
    return [(kind, order[place], place + 1) for place, kind in chosen.items()]


@torch.no_grad()
def _draw_examples(cfg: Any, framework: Framework, counts: ImageCounts, folder: Path) -> list[dict[str, Any]]:
    records = {image_name(record): record for record in load_records(cfg.DATASETS.TEST[0], "DATASETS.TEST")}
    scores = counts.scores
    examples: list[dict[str, Any]] = []
    model = next(iter(framework.eval_models().values()))
    with inference_context(framework):
        inference = build_inference(cfg, model)
        for kind, index, rank in choose_examples(scores):
            try:
                record = records[counts.files[index]]
                example = _draw_example(cfg, framework, inference, record, folder, len(examples))
            except (InputError, KeyError) as error:
                logging.getLogger(__name__).warning("%s: is not drawn (%s)", counts.files[index], error)
                continue
            example |= {"kind": kind, "score": float(scores[index]), "rank": rank, "file": counts.files[index]}
            examples.append(example)
    return examples


def _draw_example(
    cfg: Any, framework: Framework, inference: nn.Module, record: dict[str, Any], folder: Path, number: int
) -> dict[str, Any]:
    """Draw one image, of what is judged of it, and the classes that occur in its pictures."""
    item = EvalMapper()(record)
    size = (item["height"], item["width"])
    logits = inference([item])[0]["sem_seg"]
    logits = logits[(..., *center_window(logits.shape[-2:], size))]  # it may be of a padded image
    window = center_window(size, evaluated_crop(cfg) or size)
    probabilities = logits[(..., *window)].float().softmax(dim=0)
    highest, predicted = probabilities.max(dim=0)
    confidence, prediction = highest.cpu().numpy(), predicted.cpu().numpy()
    colors = MetadataCatalog.get(cfg.DATASETS.TEST[0]).stuff_colors
    truth = read_labels(record, size, len(colors))[window]
    image = render(item["image"], item.get("layout", RGB))[(..., *window)]
    wrong = np.where(truth == IGNORE, IGNORE, prediction != truth)
    pictures = {
        "image": image,
        "truth": overlay(image, truth, colors),
        "prediction": overlay(image, prediction, colors),
        "errors": overlay(image, wrong, (_RIGHT, _WRONG)),
        "confidence": heatmap(confidence),
    }
    weigher = framework.weigher
    if weigher is not None and (weights := _weigh(framework, weigher, item["image"])) is not None:
        colored = heatmap(weights[window], weigher.max_weight)
        pictures["weights"] = (0.3 * image.mean(axis=0) + 0.7 * colored).round().astype(np.uint8)
    names = {}
    for title, picture in pictures.items():
        names[title] = f"{number:02d}_{title}.webp"
        _save(picture, folder / names[title])
    judged = truth != IGNORE
    return {
        "pictures": names,
        "classes": sorted({*np.unique(truth[judged]).tolist(), *np.unique(prediction).tolist()}),
        "wrong": 100 * float((prediction != truth)[judged].mean()) if judged.any() else None,
        "confidence": 100 * float(confidence.mean()),
    }


def _weigh(framework: Framework, weigher: PixelWeigher, image: Tensor) -> NDArray[np.float32] | None:
    """The weights (H, W) that an image would have as an unlabeled one; None if they need boxes that are not there."""
    model = next(iter(framework.eval_models().values()))
    prediction = predict(model, model.normalize(image[None]))
    found = model.detect(prediction.features, [(image.shape[-2], image.shape[-1])]) if model.has_detector else None
    pseudo = weigh_prediction(framework, weigher, prediction, found)
    return None if pseudo is None else pseudo.weight[0].float().cpu().numpy()


def encode_picture(picture: Picture) -> bytes:
    """A WebP of a (3, H, W) uint8 picture, at most 320 pixels wide and high."""
    image, file = to_image(picture), BytesIO()
    image.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
    image.save(file, format="WEBP", quality=80)
    return file.getvalue()


def _save(picture: Picture, path: Path) -> None:
    content = encode_picture(picture)
    replace_file(path, lambda unfinished: unfinished.write_bytes(content))
