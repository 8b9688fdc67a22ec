"""The figures by name, each a function of trainings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from wpl_d2.engine import Spread, read_prototypes
from wpl_d2.structures import class_boxes
from wpl_d2.utils.errors import InputError
from wpl_d2.visualization import draw_boxes, heatmap, overlay
from wpl_d2.visualization.draw import Picture
from wpl_d2.weighting.similarity import top_channels

from .drawing import COLORS, COLUMN, Drawn, canvas, draw_lines, show_picture
from .measures import channel_attention, embedding_variance, hamming_distances, label_accuracy
from .trained import Labeled, Snapshot, class_id

_OUTLINE = (255, 0, 160)


@dataclass(frozen=True)
class Options:
    """What the command line says beside the trainings.

    Attributes:
        dataset: a list of images with masks; "": the first of DATASETS.TEST.
        images: how many of them, a random part; None: all.
        chosen: ids of images, in place of a random part.
        classes: names.
        k: of the most active channels; 0: WEIGHTING.K.
        score: least score of a box that is drawn.
        confidence: least one of a label that is shown beside weights.
    """

    dataset: str = ""
    images: int | None = None
    chosen: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    k: int = 0
    score: float = 0.9
    confidence: float = 0.95


Trainings = Sequence[Sequence[Snapshot]]
"""The snapshots of each run, by step."""
Draw = Callable[[Trainings, Options], Drawn]
FIGURES: dict[str, tuple[Draw, str]] = {}
"""The function of each figure, and what it shows in a line."""


def figure(text: str, *names: str) -> Callable[[Draw], Draw]:
    """Register a figure under the paper's numbers."""

    def register(draw: Draw) -> Draw:
        FIGURES.update({name: (draw, text) for name in names})
        return draw

    return register


@figure("weights beside what a threshold selects, wrong labels outlined, of the last checkpoints", "1")
def draw_weights(trainings: Trainings, options: Options) -> Drawn:
    """Pictures of each run and image: the image, its confident labels, and weights; wrong labels have an outline."""
    shown = [(own[-1], image) for own in trainings for image in _label(own[-1], options, 3)]
    rows = []
    with canvas(len(shown), 3, (2 * COLUMN, 0.3 + 1.5 * len(shown))) as (drawn, axes):
        for line, (snapshot, image) in zip(axes, shown, strict=True):
            pseudo, threshold = image.pseudo.map(lambda field: field.cpu()), options.confidence
            colors, wrong = snapshot.metadata.stuff_colors, (image.judged & ~image.right)[0].cpu()
            confident = pseudo.labels.masked_fill(pseudo.confidence < threshold, 255)[0]
            weights = heatmap(pseudo.weight[0].numpy(), snapshot.weigher.max_weight)
            names = "image", f"labels, confidence ≥ {threshold:g}", f"weights, {snapshot.name}"
            pictures = image.picture, overlay(image.picture, confident, colors), weights
            for place, picture, title in zip(line, pictures, names, strict=True):
                show_picture(place, picture if title == "image" else _outlined(picture, wrong.numpy()), title)
            weight, judged, right = (field[0].cpu() for field in (image.pseudo.weight, image.judged, image.right))
            means = [float(weight[mask].mean()) for mask in (right, judged & ~right)]
            rows.append([snapshot.name, snapshot.step, image.name, *means, float(right.sum() / judged.sum())])
    return Drawn(drawn, ["run", "step", "image", "weight where right", "weight where wrong", "right"], rows)


@figure("right and wrong labels over the threshold as training goes on", "5a")
def draw_confident(trainings: Trainings, options: Options) -> Drawn:
    """Shares of all labeled pixels that are confident and right, and confident and wrong."""
    rows, lines = [], []
    for own in trainings:
        found = [(snapshot.step, _accuracy(snapshot, options)) for snapshot in own]
        steps = [step for step, _ in found]
        right = [result["coverage"] * result["confident"] / 100 for _, result in found]
        wrong = [result["coverage"] - part for (_, result), part in zip(found, right, strict=True)]
        lines += [(f"{own[0].name}, right", steps, right), (f"{own[0].name}, wrong", steps, wrong)]
        rows += [[own[0].name, *row] for row in zip(steps, right, wrong, strict=True)]
    with canvas() as (drawn, axes):
        draw_lines(axes[0, 0], lines)
        axes[0, 0].set(xlabel="step", ylabel="confident labels, % of all pixels", ylim=(0, None))
    return Drawn(drawn, ["run", "step", "right", "wrong"], rows)


@figure("variance of the embeddings of rightly labeled pixels, by class, as training goes on", "5b")
def draw_variance(trainings: Trainings, options: Options) -> Drawn:
    """A line for each run and class; by default of the first four classes that have any."""
    rows, lines = [], []
    for own in trainings:
        names, found = own[0].metadata.stuff_classes, defaultdict(list)
        for snapshot in own:
            variances = embedding_variance(_label(snapshot, options), len(names)).tolist()
            for name, value in zip(names, variances, strict=True):
                found[name].append(value)
        chosen = options.classes or [name for name, values in found.items() if np.isfinite(values).all()][:4]
        for name in chosen:
            class_id(own[0], name)
            lines.append((f"{own[0].name}, {name}", [snapshot.step for snapshot in own], found[name]))
            rows += [[own[0].name, name, *row] for row in zip(*lines[-1][1:], strict=True)]
    with canvas() as (drawn, axes):
        draw_lines(axes[0, 0], lines)
        axes[0, 0].set(xlabel="step", ylabel="variance of the embedding", ylim=(0, None))
    return Drawn(drawn, ["run", "class", "step", "variance"], rows)


@figure("how far right and wrong pixels' codes are from their prototype's, of the last checkpoints", "5c")
def draw_hamming(trainings: Trainings, options: Options) -> Drawn:
    """Bars for the distances of right and wrong labels, a panel for each run."""
    rows = []
    with canvas(1, len(trainings), (COLUMN * len(trainings), 2.2)) as (drawn, axes):
        for place, (*_, last) in zip(axes[0], trainings, strict=True):
            k = options.k or last.cfg.WEIGHTING.K
            counts = hamming_distances(_label(last, options), last.weigher.memory.prototypes, k).double()
            shares = 100 * counts / counts.sum(dim=1, keepdim=True)
            distances = np.arange(0, 2 * k + 1, 2)
            for side, (name, move) in enumerate((("wrong", 0.4), ("right", -0.4))):
                color = COLORS[1 - side]
                place.bar(distances + move, shares[side], width=0.8, color=color, label=f"{name} labels")
            place.set(xlabel=f"Hamming distance, k = {k}", ylabel="% of the labels", title=last.name)
            place.set_xticks(distances)
            place.legend()
            rows += [[last.name, last.step, *row] for row in zip(distances.tolist(), *shares.tolist(), strict=True)]
    return Drawn(drawn, ["run", "step", "distance", "wrong", "right"], rows)


@figure("accuracy of pseudo-labels, counted by their weights, as training goes on", "6", "s1", "s3")
def draw_accuracy(trainings: Trainings, options: Options) -> Drawn:
    """A line for each run: such as one by rank and one by cosine, or one with weights and one without."""
    rows, lines = [], []
    for own in trainings:
        found = [(snapshot.step, _accuracy(snapshot, options)["weighted"]) for snapshot in own]
        lines.append((own[0].name, *zip(*found, strict=True)))
        rows += [[own[0].name, *row] for row in found]
    with canvas() as (drawn, axes):
        draw_lines(axes[0, 0], lines)
        axes[0, 0].set(xlabel="step", ylabel="accuracy of confident labels\nby their weights, %")
    return Drawn(drawn, ["run", "step", "accuracy"], rows)


@figure("mIoU by the number of channels that are compared (WEIGHTING.K)", "7")
def draw_k(trainings: Trainings, options: Options) -> Drawn:
    """The last mIoU of the runs with each k, a mean and spread over seeds; without weights as a line."""
    plain, by_k = [], defaultdict(list)
    for own in trainings:
        run = own[-1].run
        if run.figure is None:
            raise InputError(f"{run.folder}: has no {run.metric} in metrics.json; evaluate it, or leave it out")
        (by_k[run.settings["WEIGHTING.K"]] if run.settings["WEIGHTING.ENABLED"] else plain).append(run.figure)
    spreads = {k: Spread.of(by_k[k]) for k in sorted(by_k)}
    rows = [[k, spread.mean, spread.deviation, len(by_k[k])] for k, spread in spreads.items()]
    with canvas() as (drawn, axes):
        means, deviations = ([row[column] for row in rows] for column in (1, 2))
        axes[0, 0].errorbar(list(spreads), means, yerr=np.nan_to_num(deviations), fmt="o-", color=COLORS[0], capsize=2)
        if plain:
            axes[0, 0].axhline(np.mean(plain), color=COLORS[1], linestyle="--", label="without weights")
            axes[0, 0].legend()
            rows.append(["none", float(np.mean(plain)), Spread.of(plain).deviation, len(plain)])
        axes[0, 0].set(xlabel="k", ylabel="mIoU, %", xticks=list(spreads))
    return Drawn(drawn, ["k", "mIoU", "deviation", "runs"], rows)


@figure("the most active channels of a prototype as training goes on (WEIGHTING.RECORD_PERIOD)", "s2")
def draw_top_channels(trainings: Trainings, options: Options) -> Drawn:
    """For each class a panel of which channels are among its k most active ones at each recorded step."""
    (run, *others) = [own[-1] for own in trainings]
    if others:
        raise InputError(f"s2: draws one run, and there are {len(trainings)}; give one")
    record, k = read_prototypes(run.run.folder), options.k or run.cfg.WEIGHTING.K
    tops = top_channels(torch.from_numpy(record.prototypes).movedim(-1, 1), k)  # (N, C, D)
    names = options.classes or [n for n, c in zip(run.metadata.stuff_classes, record.counts[-1], strict=True) if c][:4]
    rows = []
    with canvas(1, len(names), (COLUMN * len(names) / 2 + 0.5, 2.6)) as (drawn, axes):
        for place, name in zip(axes[0], names, strict=True):
            own = tops[:, class_id(run, name)]
            used = own.any(dim=0).nonzero().flatten().tolist()
            for line, channel in enumerate(used):
                steps = record.steps[own[:, channel].numpy()]
                place.plot(steps, [line] * len(steps), "s", markersize=3, color=COLORS[line % len(COLORS)])
                rows += [[name, channel, int(step)] for step in steps]
            place.set(xlabel="step", title=name, yticks=range(len(used)), yticklabels=used)
        axes[0, 0].set_ylabel("channel")
    return Drawn(drawn, ["class", "channel", "step"], rows)


@figure("Grad-CAM of the channels that two classes' prototypes share, and of those that one has alone", "s4")
def draw_attention(trainings: Trainings, options: Options) -> Drawn:
    """Images in which both classes, or one of them, are labeled; a column for each group of channels."""
    if len(options.classes) != 2:
        raise InputError("--classes: s4 compares two classes; name them with a comma between, such as car,bus")
    last = trainings[0][-1]
    ids = [class_id(last, name) for name in options.classes]
    tops = top_channels(last.weigher.memory.prototypes[ids], options.k or last.cfg.WEIGHTING.K)
    first, second = options.classes
    groups = {"both": tops[0] & tops[1], first: tops[0] & ~tops[1], second: tops[1] & ~tops[0]}
    labeled = _label(last, options)
    pixels = torch.tensor([[(image.target == i).sum() for i in ids] for image in labeled]).view(-1, 2)
    # The image that shows most of both, and that of each.
    best = [column.argmax() for column in (pixels.amin(dim=1), *pixels.T) if len(column) and column.max()]
    images = [labeled[index] for index in dict.fromkeys(map(int, best))]
    if not images:
        raise InputError(f"--classes: no image of the list shows {first} or {second}; give --dataset another one")
    rows = []
    with canvas(len(images), 1 + len(groups), (2 * COLUMN, 0.3 + 1.4 * len(images))) as (drawn, axes):
        for line, image in zip(axes, images, strict=True):
            show_picture(line[0], image.picture, "image")
            for place, (name, channels) in zip(line[1:], groups.items(), strict=True):
                attention = channel_attention(last.model, image.image, channels).cpu()
                size = image.image.shape[-2:]
                shown = F.interpolate(attention[None, None], size, mode="bilinear", align_corners=False)[0, 0]
                show_picture(place, heatmap(shown.numpy()), f"{name}: {int(channels.sum())} channels")
                for kind, number in zip(options.classes, ids, strict=True):
                    inside = float(shown[image.target[0].cpu() == number].mean())
                    rows.append([image.name, name, kind, inside])
    return Drawn(drawn, ["image", "channels of", "on pixels of", "mean attention"], rows)


@figure("what detectors find", "s5")
def draw_detections(trainings: Trainings, options: Options) -> Drawn:
    """The boxes of each run's last detector with at least --score."""
    rows = []

    def panel(snapshot: Snapshot, image: Labeled) -> Picture:
        if not snapshot.model.has_detector:
            raise InputError(
                f"{snapshot.run.folder}: its model has no detector; give runs of MODEL.DETECTOR.MODE shared"
            )
        pictured = snapshot.model.normalize(image.image[None])
        with torch.no_grad():
            found = snapshot.model.detect(snapshot.model.encode(pictured), [tuple(image.image.shape[-2:])])[0].to("cpu")
        ((boxes, classes),) = class_boxes([found], options.score)
        names, colors = ([field[i] for i in classes] for field in _looks(snapshot))
        for name, box in zip(names, boxes.tolist(), strict=True):
            rows.append([snapshot.name, image.name, name, *(round(side, 1) for side in box)])
        return draw_boxes(image.picture, boxes.numpy(), names, colors)

    drawn = _panels(trainings, options, panel)
    return Drawn(drawn, ["run", "image", "class", "x0", "y0", "x1", "y1"], rows)


@figure("predictions of several runs side by side", "4", "s6", "s7", "s8", "s9", "s10", "s11")
def draw_predictions(trainings: Trainings, options: Options) -> Drawn:
    """The image, its true classes, and each run's labels by its last checkpoint."""
    rows = []

    def panel(snapshot: Snapshot, image: Labeled) -> Picture:
        rows.append([snapshot.name, image.name, float(100 * image.right.sum() / image.judged.sum())])
        return overlay(image.picture, image.pseudo.labels[0].cpu(), snapshot.metadata.stuff_colors)

    return Drawn(_panels(trainings, options, panel), ["run", "image", "right pixels, %"], rows)


def _panels(trainings: Trainings, options: Options, panel: Callable[[Snapshot, Labeled], Picture]) -> object:
    last = [own[-1] for own in trainings]
    columns = [_label(snapshot, options, 3) for snapshot in last]
    with canvas(len(columns[0]), 2 + len(last), (1.5 * (2 + len(last)), 0.3 + 1.3 * len(columns[0]))) as (drawn, axes):
        for line, images in zip(axes, zip(*columns, strict=True), strict=True):
            first = images[0]
            show_picture(line[0], first.picture, "image")
            show_picture(line[1], overlay(first.picture, first.target[0].cpu(), _looks(last[0])[1]), "ground truth")
            for place, snapshot, image in zip(line[2:], last, images, strict=True):
                show_picture(place, panel(snapshot, image), snapshot.name)
    return drawn


def _looks(snapshot: Snapshot) -> tuple[Sequence[str], Sequence[Sequence[int]]]:
    return snapshot.metadata.stuff_classes, snapshot.metadata.stuff_colors


def _label(snapshot: Snapshot, options: Options, default: int | None = None) -> list[Labeled]:
    """The labeled images; so many of them if none are asked for."""
    count = options.images or default
    dataset = snapshot.dataset(options.dataset, count, options.chosen)
    return list(snapshot.label(dataset) if options.chosen else islice(snapshot.label(dataset), count))


def _accuracy(snapshot: Snapshot, options: Options) -> dict[str, float]:
    """Of the labels of a snapshot; what an evaluation of the training has already judged is not judged again."""
    name = options.dataset or next(iter(snapshot.cfg.DATASETS.TEST), "")
    begin = f"pseudo_labels/{name}/"
    row = {
        key: value for row in snapshot.run.rows if row["iteration"] == snapshot.step - 1 for key, value in row.items()
    }
    if options.images is None and not options.chosen and f"{begin}accuracy-weighted" in row:
        kinds = {kind: row[f"{begin}accuracy-{kind}"] for kind in ("pixel", "confident", "weighted")}
        return kinds | {"coverage": row[f"{begin}coverage-confident"]}
    return label_accuracy(_label(snapshot, options), snapshot.cfg.FRAMEWORK.THRESHOLD)


def _outlined(picture: Picture, mask: np.ndarray) -> Picture:
    """The picture with a line around the areas of a mask (H, W) bool."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge = mask & ~inner
    return np.where(edge, np.array(_OUTLINE, np.uint8)[:, None, None], picture)
