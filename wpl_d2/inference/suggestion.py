"""Which unlabeled images are most worth labeling: those whose objects are unsure, and that are unlike each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from ..data import UnreadableImageError, setup_datasets
from ..data.datasets.setup import check_registered
from ..data.image_io import read_record
from ..data.loader import load_records, unlabeled_records
from ..data.windows import image_name
from ..modeling import UnifiedSegDet
from ..structures import PseudoLabels
from ..utils.background import in_background
from ..utils.errors import InputError
from ..weighting import Evidence
from ..weighting.components import label_components, on_cells
from ..weighting.evidence import Memory
from ..weighting.scores import ObjectConfidence, ScoreOptions
from .predictor import Predictor, batches, image_batch, predict_batch, why_skipped
from .runtime_model import build_runtime_model
from .sources import Frame

Records = Sequence[dict[str, Any]]


class JudgedObject(NamedTuple):
    """A connected component of a prediction.

    Attributes:
        class_id: of its label.
        share: of the image's pixels.
        weight: the mean weight of its pixels.
    """

    class_id: int
    share: float
    weight: float


@dataclass(frozen=True)
class JudgedImage:
    """How far the prediction of an image can be trusted.

    Attributes:
        labels: (H, W) uint8, the predicted class ids.
        weights: (H, W) float32 in [0, 1], what each label would weigh as a pseudo-label by WEIGHTING.KIND object.
        objects: the components of the labels, the largest first.
        trust: the mean weight of the objects, in which each counts by the square root of its area, so that neither the
            background nor specks decide.
        embedding: (D,) float32, the mean over the image.
    """

    labels: NDArray[np.uint8]
    weights: NDArray[np.float32]
    objects: tuple[JudgedObject, ...]
    trust: float
    embedding: NDArray[np.float32]


class ImageJudge:
    """Judges images by their prediction alone, which is made as `TEST.INFERENCE` says."""

    def __init__(self, model: UnifiedSegDet, metadata: dict[str, Any], device: str, opts: Sequence[str] = ()) -> None:
        """Prepare the prediction.

        Args:
            model: of `load_model`, with its metadata.
            metadata: likewise.
            device: the model's.
            opts: see `Predictor`.

        Raises:
            InputError: see `Predictor`; or the model segments nothing.
        """
        segment = Predictor(build_runtime_model(model, metadata), device, opts=opts).segment
        if segment is None:
            raise InputError("RUN: is of a detector alone, which labels no pixels; give a training of a segmenter")
        self._segment, self._device = segment, device
        self._pooled: list[Tensor] = []
        model.sem_seg_head.register_forward_hook(lambda head, given, output: self._pool(output.embedding))

    def _pool(self, embedding: Tensor) -> None:
        """Keep the mean embedding of every image, or window of one, that the model segments."""
        self._pooled.append(embedding.float().mean(dim=(2, 3)))

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[JudgedImage]:
        """Judge a batch.

        Args:
            images: of `read_image`, all of one size.
        """
        self._pooled.clear()
        logits = self._segment(image_batch(images, self._device))
        # Of each image there are equally many windows or views, and those of a batch's images follow each other.
        embeddings = torch.cat(self._pooled).unflatten(0, (-1, len(images))).mean(dim=0)
        pseudo = PseudoLabels.from_logits(logits)
        # Components of the classes that occur alone, of which there may be few among many.
        classes, labels = pseudo.labels.unique(return_inverse=True)
        score = ObjectConfidence(ScoreOptions(len(classes)))
        weights = score(Evidence(pseudo.replace(labels=labels), logits, embeddings[..., None, None]), Memory(()))
        cells = on_cells(labels)
        components = label_components(cells, torch.arange(len(classes), device=cells.device))
        maps = (pseudo.labels.byte(), weights, classes[cells], components, on_cells(weights), embeddings)
        return [_judge(*of_image) for of_image in zip(*(values.cpu().numpy() for values in maps), strict=True)]


def _judge(
    labels: np.ndarray,
    weights: np.ndarray,
    cells: np.ndarray,
    components: np.ndarray,
    cell_weights: np.ndarray,
    embedding: np.ndarray,
) -> JudgedImage:
    _, first, index, sizes = np.unique(components, return_index=True, return_inverse=True, return_counts=True)
    means = np.bincount(index.ravel(), cell_weights.ravel()) / sizes
    rows = zip(cells.ravel()[first].tolist(), (sizes / cells.size).tolist(), means.tolist(), strict=True)
    objects = sorted((JudgedObject(*row) for row in rows), key=lambda found: -found.share)
    return JudgedImage(labels, weights, tuple(objects), float(np.average(means, weights=np.sqrt(sizes))), embedding)


@dataclass(frozen=True)
class Choice:
    """Why an image was chosen.

    Attributes:
        index: of the image.
        rank: from 1 for the one that is trusted least of all.
        group_size: how many images are alike, it among them.
        group_rank: as `rank`, among these.
    """

    index: int
    rank: int
    group_size: int
    group_rank: int


def choose_images(trust: NDArray[np.float64], embeddings: NDArray[np.float32], count: int) -> list[Choice]:
    """Choose images of little trust that are unlike each other.

    The directions of the embeddings are divided by k-means into as many groups as images are wanted; the least trusted
    of each group is chosen. Groups of equal embeddings may be fewer: then the second of each follow, and so on.

    Args:
        trust: (N,) of the images.
        embeddings: (N, D) likewise.
        count: how many are wanted.

    Returns:
        `count` choices, or N if that is less.
    """
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    directions = directions.astype(np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, groups = kmeans2(directions, _first_centers(directions, count), minit="matrix")
    sizes, seen = np.bincount(groups), np.zeros(groups.max() + 1, np.int64)
    choices = []
    for rank, index in enumerate(np.argsort(trust, kind="stable").tolist(), start=1):
        group = int(groups[index])
        seen[group] += 1
        choices.append(Choice(index, rank, int(sizes[group]), int(seen[group])))
    return sorted(choices, key=lambda choice: (choice.group_rank, choice.rank))[:count]


def _first_centers(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Up to `count` different points, drawn as k-means++ does, in time linear in `count`, which SciPy's is not."""
    rng = np.random.RandomState(0)
    centers = [points[rng.randint(len(points))]]
    nearest = cdist(centers, points, "sqeuclidean")[0]
    while len(centers) < count and (total := nearest.sum()) > 0:
        centers.append(points[np.searchsorted((nearest / total).cumsum()[:-1], rng.uniform())])
        nearest = np.minimum(nearest, cdist(centers[-1:], points, "sqeuclidean")[0])
    return np.stack(centers)


def candidate_records(cfg: CfgNode, names: Sequence[str] = ()) -> Records:
    """The images of a run that may be labeled next; no mask of theirs is looked for.

    Args:
        cfg: of the run, not frozen; its data sets get registered.
        names: of the lists to choose from, by default those of DATASETS.UNLABELED.

    Returns:
        dataset dicts; each image once, and without those that the run learned from as labeled ones.

    Raises:
        InputError: a list cannot be read, or no image is left.
    """
    cfg.DATASETS.TEST = cfg.TEST.PSEUDO_LABELS = ()
    lists = tuple(names) or cfg.DATASETS.UNLABELED
    cfg.DATASETS.UNLABELED = ()
    setup_datasets(cfg)
    for name in lists:
        check_registered("--dataset", name)
    cfg.DATASETS.UNLABELED = lists
    labeled = (load_records(name, "DATASETS.TRAIN", optional=True, labels=False) for name in cfg.DATASETS.TRAIN)
    known = {record["file_name"] for records in labeled for record in records}
    found = {image_name(record): record for record in unlabeled_records(cfg) if record["file_name"] not in known}
    if not found:
        raise InputError(
            "--dataset: there is no unlabeled image to choose from; name a list that has some, such as fields_unlabeled"
        )
    return list(found.values())


class Survey(NamedTuple):
    """What images are chosen by.

    Attributes:
        records: their dataset dicts.
        trust: (N,) float64, see `JudgedImage`.
        embeddings: (N, D) float32, likewise.
    """

    records: list[dict[str, Any]]
    trust: NDArray[np.float64]
    embeddings: NDArray[np.float32]


def judge_images(judge: ImageJudge, records: Records, batch_size: int, report: Callable[[str], object]) -> Survey:
    """Judge images, with a progress bar; a few of them are in memory at a time.

    Args:
        judge: of the images.
        records: dataset dicts of different images.
        batch_size: most images that are judged at once.
        report: called with a message for each image that cannot be read or predicted, and is left out.

    Raises:
        InputError: no image is left.
    """
    by_file = {PurePath(image_name(record)): record for record in records}
    kept, trust, embeddings = [], [], []
    read = in_background(batches(_frames(records), batch_size), 2)
    results = (pair for batch in read for pair in zip(batch, predict_batch(judge, batch), strict=True))
    for frame, judged in tqdm(results, total=len(records), unit="image"):
        if isinstance(judged, Exception):
            report(f"left out: {why_skipped(frame, judged)}")
            continue
        kept.append(by_file[frame.file])
        trust.append(judged.trust)
        embeddings.append(judged.embedding)
    if not kept:
        raise InputError(f"--dataset: none of its {len(records)} images can be judged; restore the files named above")
    return Survey(kept, np.array(trust), np.stack(embeddings))


def _frames(records: Records) -> Iterator[Frame]:
    for record in records:
        file = PurePath(image_name(record))
        try:
            yield Frame(file, file, read_record(record))
        except UnreadableImageError as error:
            yield Frame(file, file, error)
