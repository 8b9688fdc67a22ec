"""The metrics of semantic segmentation from a confusion matrix that stays on the device until the end."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from ..data import EvalDataset
from ..data.mappers import read_labels
from ..data.windows import image_name
from ..inference.sliding_window import center_window
from ..structures import IGNORE
from ..utils.comm import sum_over_ranks
from ..utils.cpu_speed import label_map
from .image_counts import FILE, ImageCounts

_LOGGER = logging.getLogger(__name__)
_EXACT = 2**24
"""Up to which float32, in which OpenCV counts, has all whole numbers."""


class ConfusionMatrix:
    """Counts of (true class, predicted class) over pixels.

    Attributes:
        counts: (C, C) int64, row = true class; on the device of the first update.
    """

    def __init__(self, num_classes: int) -> None:
        """Start from zero.

        Args:
            num_classes: C.
        """
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Count the pixels of one map or of many.

        Args:
            prediction: class ids in [0, C), any integer type and shape.
            target: class ids of the same shape and device; `IGNORE` is not counted.

        Returns:
            (C, C) int64, what was added to `counts`.
        """
        if prediction.device.type == "cpu":
            new = _count_pairs(target, prediction, self.num_classes)
        else:
            # Rows for all values of a byte, of which those of the classes are kept, are cheaper than leaving out
            # `IGNORE`. 32 bits hold any cell.
            cells, size = torch.add(prediction.int(), target, alpha=self.num_classes), (IGNORE + 1) * self.num_classes
            new = torch.bincount(cells.flatten(), minlength=size).view(-1, self.num_classes)[: self.num_classes]
        self.counts = self.counts.to(new.device) + new
        return new


def _count_pairs(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """How often two maps of bytes have each pair of values below `size`, (size, size) int64, on the CPU.

    OpenCV's histogram takes a third of the time of `bincount`.
    """
    maps = [values.numpy().astype(np.uint8, copy=False).reshape(1, -1) for values in (rows, columns)]
    new = torch.zeros(size, size, dtype=torch.int64)
    for start in range(0, maps[0].size, _EXACT):
        part = [values[:, start : start + _EXACT] for values in maps]
        counts = cv2.calcHist(part, [0, 1], None, [size, size], [0, size, 0, size])
        new += torch.from_numpy(counts).long()
    return new


class SemSegConfusionEvaluator(DatasetEvaluator):
    """Detectron2's `SemSegEvaluator` without boundary IoU and RLE files, which take most of its time.

    Its figures equal Detectron2's.
    """

    def __init__(
        self,
        dataset: EvalDataset,
        crop: tuple[int, int] | None = None,
        judge_padding: bool = False,
        output_dir: str | Path | None = None,
    ) -> None:
        """Prepare for a data set.

        Args:
            dataset: of C classes; images without a mask are left out.
            crop: (height, width) of the center of each image to judge; None judges the whole image.
            judge_padding: predictions are of a canvas of any size with the image in its middle, and the true class of
                the padding is 0 (U2PL, AEL).
            output_dir: gets the `ImageCounts`; None keeps none.

        Raises:
            InputError: an image has no mask, and the data set is not lenient.
        """
        self._name = dataset.name
        self._classes = dataset.classes
        self._records = {image_name(record): record for record in dataset.records_with_masks}
        self._crop = crop
        self._judge_padding = judge_padding
        self._output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._matrix = ConfusionMatrix(len(self._classes))
        self._images: dict[str, Tensor] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: dicts with "file_name", of windows "window" and, with `judge_padding`, "height" and "width" of the
                image.
            outputs: dicts with "sem_seg" (C, H, W), of the size of the image's mask, or of the canvas.

        Raises:
            ValueError: a mask of another size than the prediction, or with a class that the model lacks.
        """
        for item, output in zip(inputs, outputs, strict=True):
            prediction = label_map(output["sem_seg"])
            target = self._target(item, output["sem_seg"].shape)
            region = center_window(target.shape, self._crop or target.shape)
            # Copied, because what PIL gives is read-only.
            new = self._matrix.update(prediction[region], torch.from_numpy(target[region].copy()).to(prediction.device))
            self._images[image_name(item)] = torch.stack([new.diagonal(), new.sum(dim=1), new.sum(dim=0)])

    def _target(self, item: dict[str, Any], shape: Sequence[int]) -> NDArray[np.uint8]:
        record = self._records[image_name(item)]
        classes, *size = shape
        if not self._judge_padding:
            return read_labels(record, size, classes)
        labels = read_labels(record, (item["height"], item["width"]), classes)
        canvas = np.zeros(size, dtype=labels.dtype)
        canvas[center_window(size, labels.shape)] = labels
        return canvas

    def state(self) -> tuple[Tensor, dict[str, Tensor]]:
        """What was counted, over all images and of each."""
        return self._matrix.counts.cpu(), {file: by_class.cpu() for file, by_class in self._images.items()}

    def add_state(self, state: tuple[Tensor, dict[str, Tensor]]) -> None:
        """Add what another evaluator has counted, as of `state`."""
        self._matrix.counts = self._matrix.counts.cpu() + state[0]
        self._images |= state[1]

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """All processes' metrics in percent on the main one (see `sem_seg_metrics`), empty on the others."""
        counts = sum_over_ranks(self._matrix.counts)
        images = comm.gather({file: by_class.cpu().numpy() for file, by_class in self._images.items()})
        if counts is None:
            return OrderedDict()
        if self._output_dir is not None:
            self._save(dict(chain.from_iterable(part.items() for part in images)), counts, self._output_dir / FILE)
        there = [name for name, count in zip(self._classes, counts.sum(axis=1), strict=True) if count]
        if len(there) < 2:
            _LOGGER.warning(
                "%s: has pixels of %s, so that its metrics say nothing; see tools/check_dataset.py",
                *(self._name, f"{there[0]!r} alone" if there else "no class"),
            )
        results = sem_seg_metrics(counts, self._classes)
        _LOGGER.info("semantic segmentation, %%:\n%s", sem_seg_table(results, self._classes))
        return OrderedDict(sem_seg=results)

    def _save(self, images: dict[str, NDArray[np.int64]], confusion: NDArray[np.int64], path: Path) -> None:
        files = sorted(images)  # the same of all models, whatever processes there were
        counts = np.array([images[file] for file in files], dtype=np.int64).reshape(-1, 3, len(self._classes))
        ImageCounts(files, self._classes, counts, confusion).save(path)


def sem_seg_metrics(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """Detectron2's metrics from a confusion matrix.

    Args:
        counts: (C, C), row = true class.
        classes: C names.

    Returns:
        percent by name: mIoU and mACC (means over the classes that occur), fwIoU (weighted by their pixels), pACC,
            IoU-CLASS and ACC-CLASS (NaN for a class that does not occur).
    """
    right = counts.diagonal().astype(float)
    true, predicted = counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / np.where(true > 0, true, np.nan)
        iou = right / np.where(true > 0, true + predicted - right, np.nan)
        present = true > 0
        results = {
            "mIoU": iou[present].sum() / present.sum(),
            "fwIoU": (iou * true)[present].sum() / true.sum(),
            "mACC": recall[present].sum() / present.sum(),
            "pACC": right.sum() / true.sum(),
        }
    results |= {f"IoU-{name}": value for name, value in zip(classes, iou, strict=True)}
    results |= {f"ACC-{name}": value for name, value in zip(classes, recall, strict=True)}
    return {name: 100 * float(value) for name, value in results.items()}


def sem_seg_table(results: dict[str, float], classes: Sequence[str]) -> str:
    """The results of `sem_seg_metrics` as a text table of the classes, with the means below.

    Args:
        results: percent by name.
        classes: in the order of the rows.
    """
    rows: list[list[Any]] = [[name, results[f"IoU-{name}"], results[f"ACC-{name}"]] for name in classes]
    rows += [["mean", results["mIoU"], results["mACC"]], ["by pixels", results["fwIoU"], results["pACC"]]]
    return tabulate(rows, headers=["class", "IoU", "accuracy"], floatfmt=".2f", tablefmt="pipe", missingval="-")
