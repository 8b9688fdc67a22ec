"""Predicting all of a source."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from ..data import UnreadableImageError
from ..errors import InputError
from .predictor import Predictor
from .results import Results
from .sources import Frame, Source

Batch = list[tuple[Frame, np.ndarray]]


def predict(source: Source, predictor: Predictor, results: Results, batch_size: int) -> list[Frame]:
    """Predict everything, with a progress bar; an image that cannot be read is said and left out.

    Args:
        source: of images.
        predictor: of a model.
        results: takes the predictions in the images' order.
        batch_size: most images at once; those of a batch follow each other and have one size.

    Returns:
        what was left out.

    Raises:
        InputError: the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size: {batch_size} images; take at least 1")
    skipped: list[Frame] = []
    for batch in _batches(tqdm(source, unit="image"), batch_size, skipped):
        predictions = predictor([image for _, image in batch])
        for (frame, image), prediction in zip(batch, predictions, strict=True):
            results.add(frame, image, prediction)
    return skipped


def _batches(frames: Iterable[Frame], most: int, skipped: list[Frame]) -> Iterator[Batch]:
    batch: Batch = []
    for frame in frames:
        if isinstance(frame.image, UnreadableImageError):
            tqdm.write(f"skipped: {frame.image}", file=sys.stderr)
            skipped.append(frame)
            continue
        if batch and (len(batch) == most or frame.image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((frame, frame.image))
    if batch:
        yield batch
