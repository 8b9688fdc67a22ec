"""Where predictions go: masks, overlays, boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import save_png, writing
from ..visualization import draw_boxes, overlay
from .boxes_file import BoxesFile
from .deployed import Found
from .names import SUFFIX
from .predictor import Prediction
from .record import Record
from .sources import BOXES, MASKS, OVERLAYS, Frame, Source


class Results:
    """A folder of results, for use in a `with` statement.

    `masks/NAME.png`: a pixel's value is its class id; `overlays/NAME.png`, or of a video `overlays/VIDEO.mp4`: the
    image in the classes' colours with its boxes; with a detector `boxes.json` in COCO's format, whose category ids are
    the same class ids; `predicted.json`: which image each NAME is.

    Attributes:
        count: of the images so far.
        undrawn: those among them without an overlay.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], boxes: bool, source: Source) -> None:
        """Begin; nothing is written before the first prediction.

        Args:
            folder: made where it is missing.
            about: of the model.
            boxes: whether there is a detector.
            source: of the images.

        Raises:
            InputError: the folder has masks that no earlier prediction wrote, such as a data set's, or results of
                other images that would be lost.
        """
        if (folder / MASKS).is_dir() and not (folder / OVERLAYS).is_dir():
            raise InputError(
                f"{folder / MASKS}: is no earlier result, and could be written over; give another --output"
            )
        self.folder, self.about, self.video = folder, about, source.video
        self._record = Record(folder, source)
        self._boxes: BoxesFile | None = None
        if boxes:
            categories = [{"id": index, "name": about["classes"][index]} for index in about["objects"]]
            own = {*source.places.values()} if source.video is None else {*source.places}
            others = bool(self._record.earlier)
            self._boxes = BoxesFile(
                folder / BOXES, categories, lambda file: others and own.isdisjoint((file, file.parent))
            )
        self._writer: cv2.VideoWriter | None = None
        self._draws = True
        self.count = 0
        self.undrawn: list[Frame] = []

    def __enter__(self) -> Results:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the video and write the boxes, also of a run that was stopped."""
        if self._writer is not None:
            self._writer.release()
        if self._boxes is not None:
            self._boxes.write()

    def add(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
        """Write the mask of one image and note its boxes.

        Args:
            frame: names the image.
            image: (H, W, 3) uint8 RGB.
            prediction: of the image.

        Raises:
            UnwritableError: the disk does not take them.
        """
        if not self.count:
            self._record.write()
        if prediction.labels is not None:
            _save(prediction.labels, self.folder / MASKS / f"{frame.name}{SUFFIX}")
        if self._boxes is not None and prediction.found is not None:
            self._boxes.add(frame.file, image.shape[:2], prediction.found)
        self.count += 1

    def draw(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
        """Write the overlay of one image, or a video's next frame.

        Args:
            frame: see `add`.
            image: see `add`.
            prediction: see `add`.

        Raises:
            UnwritableError: the disk does not take it.
            InputError: OpenCV cannot write the video; said once.
        """
        if not self._draws:
            return
        picture = image.transpose(2, 0, 1)
        if prediction.labels is not None:
            picture = overlay(picture, prediction.labels, self.about["colors"])
        if prediction.found is not None:
            picture = self._draw(picture, prediction.found)
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
        if self.video is None:
            _save(pixels, self.folder / OVERLAYS / f"{frame.name}{SUFFIX}")
        else:
            self._append(pixels, *self.video)

    def _draw(self, picture: np.ndarray, found: Found) -> np.ndarray:
        names, colors, ids = self.about["classes"], self.about["colors"], found.classes.tolist()
        texts = [f"{names[index]} {score:.2f}" for index, score in zip(ids, found.scores.tolist(), strict=True)]
        return draw_boxes(picture, found.boxes, texts, [colors[index] for index in ids])

    def _append(self, pixels: np.ndarray, name: PurePath, rate: float) -> None:
        if self._writer is None:
            file = self.folder / OVERLAYS / f"{name}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(file), code, rate, (pixels.shape[1], pixels.shape[0]))
            if not self._writer.isOpened():
                self._draws = False
                raise InputError(f"{file}: OpenCV cannot write MP4 here; give single images instead of the video")
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))


def _save(pixels: np.ndarray, file: Path) -> None:
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    save_png(Image.fromarray(pixels), file)
