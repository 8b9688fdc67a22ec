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
from PIL import Image, ImageDraw

from ..data import EvalMapper
from ..data.mappers import read_labels
from ..frameworks import Framework
from ..frameworks.pseudo_labels import gather_evidence, make_pseudo_labels, predict
from ..structures import Detections, class_boxes
from ..utils.errors import InputError
from ..utils.files import save_png
from .draw import Color, Picture, draw_boxes, font, heatmap, overlay, to_image

CELL = 256
"""Length of the longer side of each image, in pixels."""
GAP = 10
BOX_SCORE = 0.5
"""The least score of a box that is drawn."""

_PAPER, _INK = (250, 250, 250), (30, 30, 30)
_LINE = 26  # height of a line of text with its margin

Row = dict[str, Image.Image]
"""Column title to picture."""


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
    save_png(compose(rows, legend, weights="weight" in rows[0]), Path(path))


def render_row(framework: Framework, item: Mapping[str, Any], metadata: Any) -> Row:
    """The pictures of one image, resized to `CELL`.

    Args:
        framework: in evaluation mode.
        item: of `EvalMapper`; without a mask the ground truth is omitted.
        metadata: with `stuff_classes` and `stuff_colors`.
    """
    model, weigher, refinement = next(iter(framework.eval_models().values())), framework.weigher, framework.refinement
    image = item["image"]
    size = (image.shape[-2], image.shape[-1])
    prediction = predict(model, model.normalize(image[None]))
    labels = prediction.output.logits.argmax(dim=1)
    colors: Sequence[Color] = metadata.stuff_colors
    row = {"image": _cell(image.numpy())}
    if "sem_seg_file_name" in item:
        truth = read_labels(dict(item), size, len(colors))
        row["ground truth"] = _cell(overlay(image, truth, colors))
    row["prediction"] = _cell(overlay(image, labels[0].cpu(), colors))
    detections = model.detect(prediction.features, [size]) if model.has_detector else None
    if weigher is not None:
        needs = weigher.score_needs if refinement is None else weigher.score_needs | refinement.needs
        # Cached boxes exist for training images alone.
        if detections is not None or "boxes" not in needs:
            evidence = gather_evidence(model, prediction, detections=detections)
            pseudo = make_pseudo_labels(evidence, refinement, weigher)
            weight = pseudo.weight * (pseudo.confidence >= framework.threshold)
            row["weight"] = _cell(heatmap(weight[0].cpu(), weigher.max_weight))
    if detections is not None:
        row["boxes"] = _boxes(image.numpy(), detections[0].to("cpu"), metadata)
    return row


def compose(rows: Sequence[Row], legend: Mapping[str, Color], weights: bool) -> Image.Image:
    """Put rows of pictures below their titles and above a legend of the classes' colors.

    Args:
        rows: all with the same titles.
        legend: (r, g, b) by class name.
        weights: whether to add the color scale of weights.
    """
    width = GAP + len(rows[0]) * (CELL + GAP)
    tops = np.cumsum([_LINE, *(max(cell.height for cell in row.values()) + GAP for row in rows)]).tolist()
    entries = _legend_places(legend, width)
    height = tops[-1] + entries[-1][1] + _LINE * (1 + weights) + GAP
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(rows[0]):
        x = GAP + column * (CELL + GAP)
        draw.text((x, 5), title, fill=_INK, font=font(16))
        for top, row in zip(tops, rows, strict=False):
            canvas.paste(row[title], (x, top))
    for (x, y), (name, color) in zip(entries, legend.items(), strict=True):
        draw.rectangle((x, tops[-1] + y + 4, x + 16, tops[-1] + y + 20), fill=tuple(color), outline=_INK)
        draw.text((x + 22, tops[-1] + y + 4), name, fill=_INK, font=font(14))
    if weights:
        _scale(canvas, height - _LINE - GAP // 2)
    return canvas


def _legend_places(legend: Mapping[str, Color], width: int) -> list[tuple[int, int]]:
    """The corner of each class's swatch, relative to the legend's, in lines of at most `width` pixels."""
    places, x, y = [], GAP, 0
    for name in legend:
        needed = 22 + int(font(14).getlength(name)) + 2 * GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + _LINE
        places.append((x, y))
        x += needed
    return places


def _scale(canvas: Image.Image, top: int) -> None:
    """Draw the color scale of weights."""
    draw = ImageDraw.Draw(canvas)
    ramp = to_image(heatmap(np.tile(np.linspace(0, 1, 160), (16, 1))))
    start = "weight: none"
    x = GAP + int(font(14).getlength(start)) + 8
    draw.text((GAP, top), start, fill=_INK, font=font(14))
    canvas.paste(ramp, (x, top + 1))
    draw.text((x + ramp.width + 8, top), "full", fill=_INK, font=font(14))


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
