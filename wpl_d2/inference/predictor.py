"""Predicting class ids and boxes of images, one batch or a whole source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoint.metadata import restore_cfg
from ..config import override
from ..config.validation import check_section
from ..data import UnreadableImageError
from ..data.pixel_values import PixelLayout
from ..structures import Detections
from ..utils.background import in_background
from ..utils.cpu_speed import label_map
from ..utils.errors import InputError
from ..utils.files import UnwritableError
from .build import build_predict
from .huge_images import HugeImage, Part, predict_parts
from .runtime_model import Prediction, RuntimeModel
from .sources import Frame, Source
from .writers import PredictionWriter

Result = TypeVar("Result")

_KEYS = "TEST.INFERENCE."
_AHEAD = 2
"""Batches that are read before they are predicted, and predicted before they are written."""


class Predictor:
    """Segments images as `TEST.INFERENCE` says, and detects objects in whole images.

    Attributes:
        layout: of the images that the model takes.
    """

    def __init__(
        self,
        model: RuntimeModel,
        device: str,
        min_score: float = 0.5,
        opts: Sequence[str] = (),
        maps: Collection[str] = (),
    ) -> None:
        """Prepare the prediction.

        Args:
            model: of `open_model`, on the same device.
            device: to put images on.
            min_score: boxes with a lower score are dropped.
            opts: alternating keys below TEST.INFERENCE and values, which override the training's config. Its MODE crop,
                which predicts the center only, becomes whole unless overridden.
            maps: which of "confidence" and "probabilities" each prediction has, too.

        Raises:
            InputError: another key, an invalid value, or maps of a model that only detects.
        """
        for key in opts[::2]:
            if not key.startswith(_KEYS):
                raise InputError(f"overrides: {key} cannot change a trained model; set keys that begin with {_KEYS}")
        cfg = restore_cfg(model.metadata["config"])
        if cfg.TEST.INFERENCE.MODE == "crop":
            cfg.TEST.INFERENCE.MODE = "whole"
        override(cfg, opts)
        check_section(cfg, "INPUT")
        self.layout = PixelLayout.from_config(cfg)
        self.segment = build_predict(cfg, model.segment) if model.segment else None
        self.detect = model.detect
        self.device = device
        self.min_score = min_score
        self.maps = frozenset(maps)
        if maps and self.segment is None:
            raise InputError(f"--save {','.join(sorted(maps))}: the model only detects; give one that segments")

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Predict a batch.

        Args:
            images: (H, W, 3) uint8 RGB, or (H, W, C) float32 of the model's `PixelLayout`, all of one size.
        """
        batch = image_batch(images, self.device)
        segmented: Sequence[Prediction] = [Prediction(None, None)] * len(images)
        if self.segment is not None:
            segmented = [self._segmented(logits) for logits in self.segment(batch)]
        if self.detect is None:
            return list(segmented)
        found = (self._filter(of_image) for of_image in self.detect(batch))
        return [mine._replace(detections=boxes) for mine, boxes in zip(segmented, found, strict=True)]

    def _segmented(self, logits: Tensor) -> Prediction:
        """Labels and maps of an image's logits (C, H, W)."""
        labels = label_map(logits).cpu().numpy()
        if not self.maps:
            return Prediction(labels, None)
        probabilities = logits.float().softmax(dim=0)
        confidence = (probabilities.amax(dim=0) * 255).round().byte() if "confidence" in self.maps else None
        return Prediction(
            labels,
            None,
            None if confidence is None else confidence.cpu().numpy(),
            probabilities.half().cpu().numpy() if "probabilities" in self.maps else None,
        )

    def _filter(self, detections: Detections) -> Detections:
        keep = (detections.scores >= self.min_score) & detections.boxes.isfinite().all(dim=1)
        return detections.select(keep).to("cpu")


def predict(source: Source, predictor: Predictor, writer: PredictionWriter, batch_size: int) -> list[Frame]:
    """Predict all images of a source, with a progress bar; those that cannot be read or predicted are reported.

    The next images are read, and results are written, beside the network. A few batches are in memory at a time.

    Args:
        source: of the images.
        predictor: of the model.
        writer: gets the predictions in the order of the images.
        batch_size: most images per batch; a batch holds successive images of one size.

    Returns:
        the skipped images.

    Raises:
        InputError: the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size: {batch_size} images; take at least 1")
    skipped: list[Frame] = []
    read = in_background(batches(source, batch_size), _AHEAD)
    predicted = in_background(((batch, _predict_frames(predictor, batch, batch_size)) for batch in read), _AHEAD)
    with tqdm(total=len(source), unit="image") as progress:
        for batch, predictions in predicted:
            for frame, prediction in zip(batch, predictions, strict=True):
                if isinstance(prediction, Exception):
                    _skip(frame, why_skipped(frame, prediction), skipped)
                elif isinstance(prediction, Iterator):
                    _write_parts(writer, frame, prediction, skipped)
                else:
                    _write(writer, frame, prediction, skipped)
                progress.update()
    return skipped


def _predict_frames(
    predictor: Predictor, batch: Sequence[Frame], size: int
) -> Sequence[Prediction | Iterator[Part] | Exception]:
    image = batch[0].image
    if not isinstance(image, HugeImage):
        return predict_batch(predictor, batch)
    if predictor.maps or predictor.segment is None:
        return [InputError("of images that are predicted by windows neither maps are made nor boxes without labels")]
    return [predict_parts(predictor, image, size)]


def _write_parts(writer: PredictionWriter, frame: Frame, parts: Iterator[Part], skipped: list[Frame]) -> None:
    """Predict and write the parts of a huge image, and draw the overview."""
    try:
        overview = writer.add_parts(frame, parts)
    except UnwritableError as error:
        _skip_unwritten(frame, error, skipped)
    except Exception as error:  # as in `_predict`
        _skip(frame, why_skipped(frame, error), skipped)
    else:
        _draw(writer, frame, overview.image, Prediction(overview.labels, None))


def _write(writer: PredictionWriter, frame: Frame, prediction: Prediction, skipped: list[Frame]) -> None:
    image = cast(np.ndarray, frame.image)
    try:
        writer.add(frame, image, prediction)
    except UnwritableError as error:
        _skip_unwritten(frame, error, skipped)
    else:
        _draw(writer, frame, image, prediction)


def _skip_unwritten(frame: Frame, error: UnwritableError, skipped: list[Frame]) -> None:
    if error.is_disk_error:
        raise error
    _skip(frame, f"{frame.file}: its results cannot be written ({error})", skipped)


def _draw(writer: PredictionWriter, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
    try:
        writer.draw(frame, image, prediction)
    except Exception as error:  # an overlay is only for looking at
        writer.without_overlay.append(frame)
        _print(f"no overlay: {frame.file}: {_reason(error)}")


def image_batch(images: Sequence[np.ndarray], device: str) -> Tensor:
    """Images (H, W, 3) uint8 of one size as a batch (N, 3, H, W) float in 0..255 on a device."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float()


def predict_batch(
    predictor: Callable[[Sequence[np.ndarray]], Sequence[Result]], batch: Sequence[Frame]
) -> Sequence[Result | Exception]:
    """The results of a batch of `batches`, or the errors of images that cannot be read or predicted."""
    images = [frame.image for frame in batch]
    if isinstance(images[0], Exception):
        return [images[0]]
    return _predict(predictor, cast(list[np.ndarray], images))


def _predict(
    predictor: Callable[[Sequence[np.ndarray]], Sequence[Result]], images: Sequence[np.ndarray]
) -> Sequence[Result | Exception]:
    """Predict a batch, or each image by itself if the whole batch fails."""
    try:
        return predictor(images)
    except Exception as error:  # of PyTorch, ONNX Runtime and others: out of memory, an unsupported size
        if len(images) == 1:
            return [error.with_traceback(None)]  # a traceback would keep tensors alive
    return [_predict(predictor, [image])[0] for image in images]


def why_skipped(frame: Frame, error: Exception) -> str:
    """What to say of an image that was skipped for an error of `predict_batch`."""
    if isinstance(error, UnreadableImageError):
        return str(error)
    return f"{frame.file}: cannot be predicted ({_reason(error)})"


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Successive images of one size.

    One that is huge or cannot be read is a batch by itself, before the one that it stood in.
    """
    batch: list[Frame] = []
    for frame in frames:
        if not isinstance(frame.image, np.ndarray):
            yield [frame]
            continue
        if batch and (len(batch) == size or frame.image.shape != cast(np.ndarray, batch[0].image).shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def _skip(frame: Frame, reason: str, skipped: list[Frame]) -> None:
    _print(f"skipped: {reason}")
    skipped.append(frame)


def _print(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
