"""Predicting all of a source."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from ..data import UnreadableImageError
from ..utils.errors import InputError
from ..utils.files import UnwritableError
from .predictor import Prediction, Predictor
from .sources import Frame, Source
from .writers import PredictionWriter

Batch = list[tuple[Frame, np.ndarray]]


def predict(source: Source, predictor: Predictor, results: PredictionWriter, batch_size: int) -> list[Frame]:
    """Predict everything, with a progress bar; an image that cannot be read or predicted is said and left out.

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
        for (frame, image), prediction in zip(batch, _predict(predictor, [image for _, image in batch]), strict=True):
            if isinstance(prediction, Exception):
                _skip(frame, f"{frame.file}: cannot be predicted ({_reason(prediction)})", skipped)
            else:
                _write(results, frame, image, prediction, skipped)
    return skipped


def _write(
    results: PredictionWriter, frame: Frame, image: np.ndarray, prediction: Prediction, skipped: list[Frame]
) -> None:
    try:
        results.add(frame, image, prediction)
    except UnwritableError as error:
        if error.is_disk_error:
            raise
        _skip(frame, f"{frame.file}: its results cannot be written ({error})", skipped)
        return
    try:
        results.draw(frame, image, prediction)
    except Exception as error:  # a picture is for looking at alone
        results.without_overlay.append(frame)
        _say(f"no overlay: {frame.file}: {_reason(error)}")


def _predict(predictor: Predictor, images: Sequence[np.ndarray]) -> Sequence[Prediction | Exception]:
    """The predictions of a batch, or of each image by itself where the batch as a whole has none."""
    try:
        return predictor(images)
    except Exception as error:  # of PyTorch, ONNX Runtime and others: too little memory, a size that the model rejects
        if len(images) == 1:
            return [error.with_traceback(None)]  # which would hold on to memory
    return [_predict(predictor, [image])[0] for image in images]


def _batches(frames: Iterable[Frame], most: int, skipped: list[Frame]) -> Iterator[Batch]:
    batch: Batch = []
    for frame in frames:
        if isinstance(frame.image, UnreadableImageError):
            _skip(frame, str(frame.image), skipped)
            continue
        if batch and (len(batch) == most or frame.image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((frame, frame.image))
    if batch:
        yield batch


def _skip(frame: Frame, why: str, skipped: list[Frame]) -> None:
    _say(f"skipped: {why}")
    skipped.append(frame)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
