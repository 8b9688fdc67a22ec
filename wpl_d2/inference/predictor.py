"""Predicting class ids and boxes of images, one batch or a whole source."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast

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
from ..utils.buckets import OutputFolder, is_url
from ..utils.cpu_speed import label_map
from ..utils.errors import InputError
from ..utils.files import UnwritableError
from .build import build_predict
from .engines import Engine, LocalEngine, Part, PartStore, Work, digest, do_parts, part_length
from .huge_images import HugeImage, predict_parts
from .huge_images import Part as WindowPart
from .runtime_model import Prediction, RuntimeModel
from .sources import INDEX, PARTS, Frame, Source
from .writers import Outcome, PredictionWriter, ResultFiles

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


@dataclass(frozen=True)
class PredictionJob:
    """The prediction of parts of a `Source`, as a `Job`.

    Attributes:
        open_predictor: called in each process that predicts.
        metadata: of the model.
        folder: of the results, or its URL.
        mask_format: a name in `MASK_FORMATS`.
        batch_size: most images per batch; a batch holds successive images of one size.
    """

    open_predictor: Callable[[], Predictor]
    metadata: Mapping[str, Any]
    folder: str
    mask_format: str
    batch_size: int

    def start(self) -> Work:
        """See `Job`: the results of a part are the `Outcome`s of its images, as plain containers."""
        if not is_url(self.folder) and not Path(self.folder, INDEX).is_file():
            raise InputError(
                f"--output: {self.folder} is not seen on {socket.gethostname()}; give a folder that all machines have "
                "at the same path, or one of a bucket"
            )
        return partial(self._predict, self.open_predictor())

    def _predict(self, predictor: Predictor, parts: Iterable[Source]) -> Iterator[Iterator[Any]]:
        """The next images are read, also those of the next part, and results are written, beside the network."""
        opened = in_background(map(self._open, parts), 1)
        read = in_background(
            ((part, batch) for part in opened for batch in batches(part.source, self.batch_size)), _AHEAD
        )
        predicted = in_background(
            ((part, batch, _predict_frames(predictor, batch, self.batch_size)) for part, batch in read), _AHEAD
        )
        for part, made in groupby(predicted, key=itemgetter(0)):
            with part:
                outcomes: Iterator[Any] = (
                    _write(part.files, frame, prediction).to_plain()
                    for _, batch, predictions in made
                    for frame, prediction in zip(batch, predictions, strict=True)
                )
                if is_url(self.folder):  # where a result is told when its files are there
                    outcomes = iter(list(outcomes))
                    part.output.publish()
                yield outcomes

    def _open(self, part: Source) -> _OpenPart:
        return _OpenPart(part, self)


class _OpenPart(ExitStack):
    """A part whose images are files of this machine, and where its results are written."""

    def __init__(self, part: Source, job: PredictionJob) -> None:
        super().__init__()
        self.source = self.enter_context(part.local())
        self.output = self.enter_context(closing(OutputFolder(job.folder)))
        files = ResultFiles(self.output.path, job.metadata, self.source, job.mask_format)
        self.files = self.enter_context(closing(files))


def predict(
    source: Source,
    predictor: Predictor | Callable[[], Predictor],
    writer: PredictionWriter,
    batch_size: int,
    engine: Engine | None = None,
    facts: Sequence[Any] | None = None,
) -> list[Outcome]:
    """Predict all images of a source, with a progress bar; those that cannot be read or predicted are reported.

    A few batches are in memory at a time. The files of images are whole or absent.

    Args:
        source: of the images.
        predictor: of the model; for an engine other than the local one what opens it there, which must be picklable.
        writer: gets the predictions in the order of the images.
        batch_size: most images per batch; a batch holds successive images of one size, of one part.
        engine: where it is done, by default in this process.
        facts: what the results depend on beside images and batch size, for `digest`: what an earlier call with the same
            facts has done is not done again if it was stopped. By default everything is done.

    Returns:
        those that were skipped.

    Raises:
        InputError: the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size: {batch_size} images; take at least 1")
    parts = source.parts(part_length(batch_size))
    store = None if facts is None else PartStore(f"{writer.folder.name}/{PARTS}")
    named = [Part("" if facts is None else digest(facts, batch_size, part.facts()), part) for part in parts]
    opener = (lambda: predictor) if isinstance(predictor, Predictor) else predictor
    job = PredictionJob(opener, writer.metadata, writer.folder.name, writer.mask_format, batch_size)
    writer.begin()
    with tqdm(total=len(source), unit="image") as progress:
        for values in do_parts(engine or LocalEngine(), job, named, store):
            outcome = Outcome.from_plain(values)
            if outcome.skipped:
                _print(f"skipped: {outcome.skipped}")
            elif outcome.undrawn:
                _print(f"no overlay: {outcome.file}: {outcome.undrawn}")
            writer.add(outcome)
            progress.update()
    if store:
        writer.complete()  # first, since there would be nothing left to go on from
        store.clear()
    return writer.skipped


def _predict_frames(
    predictor: Predictor, batch: Sequence[Frame], size: int
) -> Sequence[Prediction | Iterator[WindowPart] | Exception]:
    image = batch[0].image
    if not isinstance(image, HugeImage):
        return predict_batch(predictor, batch)
    if predictor.maps or predictor.segment is None:
        return [InputError("of images that are predicted by windows neither maps are made nor boxes without labels")]
    return [predict_parts(predictor, image, size)]


def _write(files: ResultFiles, frame: Frame, prediction: Prediction | Iterator[WindowPart] | Exception) -> Outcome:
    """Write the results of an image; those of a huge one are predicted meanwhile."""
    if isinstance(prediction, Exception):
        return Outcome(frame.file, skipped=why_skipped(frame, prediction))
    try:
        if isinstance(prediction, Iterator):
            outcome, overview = files.add_parts(frame, prediction)
            image, prediction = overview.image, Prediction(overview.labels, None)
        else:
            image = cast(np.ndarray, frame.image)
            outcome = files.add(frame, image, prediction)
    except UnwritableError as error:
        if error.is_disk_error:
            raise
        return Outcome(frame.file, skipped=f"{frame.file}: its results cannot be written ({error})")
    except Exception as error:  # as in `_predict`
        if not isinstance(frame.image, HugeImage):
            raise
        return Outcome(frame.file, skipped=why_skipped(frame, error))
    try:
        files.draw(frame, image, prediction)
    except Exception as error:  # an overlay is only for looking at
        return outcome._replace(undrawn=_reason(error))
    return outcome


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


def _print(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
