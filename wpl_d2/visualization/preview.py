"""The preview: images, ground truth, predictions, weights and boxes side by side in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_context
from PIL import Image

from ..data import EvalMapper
from ..data.mappers import read_labels
from ..data.pixel_values import RGB
from ..frameworks import Framework
from ..frameworks.pseudo_labels import Prediction, gather_evidence, make_pseudo_labels, predict
from ..structures import Detections, PseudoLabels, class_boxes
from ..utils.errors import InputError
from ..utils.files import save_png
from ..weighting import PixelWeigher
from .draw import Color, Picture, draw_boxes, heatmap, overlay, render, to_image
from .sheet import Row, compose

CELL = 256
"""Length of the longer side of each image, in pixels."""
BOX_SCORE = 0.5
"""The least score of a box that is drawn."""


def render_preview(cfg: Any, framework: Framework, path: str | Path, num: int = 4) -> None:
    """Draw the predictions of a framework's first evaluation model on some images of `cfg.DATASETS.TEST[0]`.

    Columns: image, ground truth, prediction; with a weigher the weights that the predictions would have as
    pseudo-labels (black: weight 0, or a confidence below FRAMEWORK.THRESHOLD); with a detector its boxes. Unreadable
    images are left out; if none is left no picture is written.

    Args:
        cfg: a complete config.
        framework: a trained one.
        path: the PNG to write.
        num: number of images, evenly spread over the data set.
    """
    name = cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(name)
    records = DatasetCatalog.get(name)
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, min(num, len(records))).round().astype(int)]
    rows = []
    with inference_context(framework), torch.no_grad():
        for record in chosen:
            with suppress(InputError):  # the evaluation has named it
                rows.append(render_row(framework, EvalMapper()(record), metadata))
    rows = [row for row in rows if len(row) == max(map(len, rows))]  # a mask may be missing
    if not rows:
        return
    legend = dict(zip(metadata.stuff_classes, metadata.stuff_colors, strict=True))
    heading = f"{name}: predictions of the {next(iter(framework.eval_models()))}"
    save_png(compose(rows, legend, heading, weights="weight" in rows[0]), Path(path))


def render_row(framework: Framework, item: Mapping[str, Any], metadata: Any) -> Row:
    """The pictures of one image, resized to `CELL`.

    Args:
        framework: in evaluation mode.
        item: of `EvalMapper`; without a mask the ground truth is omitted.
        metadata: with `stuff_classes` and `stuff_colors`.
    """
    model = next(iter(framework.eval_models().values()))
    image = item["image"]
    size = (image.shape[-2], image.shape[-1])
    prediction = predict(model, model.normalize(image[None]))
    labels = prediction.output.logits.argmax(dim=1)
    colors: Sequence[Color] = metadata.stuff_colors
    picture = render(image, item.get("layout", RGB))
    row = {"image": _cell(picture)}
    if "sem_seg_file_name" in item:
        truth = read_labels(dict(item), size, len(colors))
        row["ground truth"] = _cell(overlay(picture, truth, colors))
    row["prediction"] = _cell(overlay(picture, labels[0].cpu(), colors))
    detections = model.detect(prediction.features, [size]) if model.has_detector else None
    weigher = framework.weigher
    if weigher is not None and (pseudo := weigh_prediction(framework, weigher, prediction, detections)):
        weight = pseudo.weight * (pseudo.confidence >= framework.threshold)
        row["weight"] = _cell(heatmap(weight[0].cpu(), weigher.max_weight))
    if detections is not None:
        row["boxes"] = _boxes(picture, detections[0].to("cpu"), metadata)
    return row


def weigh_prediction(
    framework: Framework, weigher: PixelWeigher, prediction: Prediction, detections: Sequence[Detections] | None
) -> PseudoLabels | None:
    """What a prediction of a framework's first evaluation model would be as pseudo-labels, with their weights.

    Args:
        framework: in evaluation mode.
        weigher: the framework's.
        prediction: of unmixed images.
        detections: of each image; None without a detector.

    Returns:
        None if boxes are needed and not given: cached ones are those of training images.
    """
    refinement = framework.refinement
    needs = weigher.score_needs if refinement is None else weigher.score_needs | refinement.needs
    if detections is None and "boxes" in needs:
        return None
    model = next(iter(framework.eval_models().values()))
    return make_pseudo_labels(gather_evidence(model, prediction, detections=detections), refinement, weigher)


def _boxes(image: Picture, found: Detections, metadata: Any) -> Image.Image:
    """Draw boxes on the resized picture, so that lines and names keep their size."""
    ((boxes, classes),) = class_boxes([found], BOX_SCORE)
    cell = _cell(image)
    scale = np.array([cell.width / image.shape[2], cell.height / image.shape[1]] * 2)
    return to_image(
        draw_boxes(
            np.asarray(cell).transpose(2, 0, 1),
            boxes.numpy() * scale,
            [metadata.stuff_classes[index] for index in classes],
            [metadata.stuff_colors[index] for index in classes],
        )
    )


def _cell(picture: Picture) -> Image.Image:
    image = to_image(picture)
    factor = CELL / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)
