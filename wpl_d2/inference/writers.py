"""What predictions leave in a folder: masks, overlays, boxes in COCO's format, and which image each is of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..utils.errors import InputError
from ..utils.files import clear_write_errors, save_png, write_text
from ..visualization import draw_boxes, overlay
from .predictor import Prediction
from .runtime_model import Detections
from .sources import BOXES, INDEX, MASKS, OVERLAYS, SUFFIX, Frame, Source


class PredictionWriter:
    """A folder of results, for use in a `with` statement.

    `masks/NAME.png`: a pixel's value is its class id; `overlays/NAME.png`, or of a video `overlays/VIDEO.mp4`: the
    image in the classes' colours with its boxes; with a detector `boxes.json` in COCO's format, whose category ids are
    the same class ids; `predicted.json`: which image each NAME is.

    Attributes:
        count: of the images so far.
        without_overlay: those among them without an overlay.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any], boxes: bool, source: Source) -> None:
        """Begin; nothing is written before the first prediction.

        Args:
            folder: made where it is missing.
            metadata: of the model.
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
        self.folder, self.metadata, self.video = folder, metadata, source.video
        self._index = PredictionIndex(folder, source)
        self._boxes: DetectionsFile | None = None
        if boxes:
            categories = [{"id": index, "name": metadata["classes"][index]} for index in metadata["objects"]]
            own = {*source.places.values()} if source.video is None else {*source.places}
            others = bool(self._index.earlier)
            self._boxes = DetectionsFile(
                folder / BOXES, categories, lambda file: others and own.isdisjoint((file, file.parent))
            )
        self._writer: cv2.VideoWriter | None = None
        self._draws = True
        self.count = 0
        self.without_overlay: list[Frame] = []

    def __enter__(self) -> PredictionWriter:
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
            self._index.write()
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
            picture = overlay(picture, prediction.labels, self.metadata["colors"])
        if prediction.found is not None:
            picture = self._draw(picture, prediction.found)
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
        if self.video is None:
            _save(pixels, self.folder / OVERLAYS / f"{frame.name}{SUFFIX}")
        else:
            self._append(pixels, *self.video)

    def _draw(self, picture: np.ndarray, found: Detections) -> np.ndarray:
        names, colors, ids = self.metadata["classes"], self.metadata["colors"], found.classes.tolist()
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
    with clear_write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    save_png(Image.fromarray(pixels), file)


_SHARE = 20
"""Writing the file takes at most one part in so many of the time."""


class DetectionsFile:
    """A JSON file that is whole at any time, with the boxes of almost all images so far.

    It grows with each image, so that writing it after each would take ever longer.
    """

    def __init__(self, file: Path, categories: Sequence[dict[str, Any]], keep: Callable[[PurePath], bool]) -> None:
        """Begin; nothing is written yet.

        Args:
            file: perhaps there, of earlier runs.
            categories: of all boxes, as COCO's format has them.
            keep: whether the boxes that an earlier run found in an image stay, by the image's file.

        Raises:
            InputError: boxes that are to stay cannot: the file is something else, or has other categories.
        """
        self._file = file
        self._content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": list(categories)}
        if file.is_file():
            self._take_over(keep)
        self._image = max((image["id"] for image in self._content["images"]), default=0)
        self._box = max((box["id"] for box in self._content["annotations"]), default=0)
        self._written, self._cost = 0.0, 0.0

    def add(self, file: PurePath, size: tuple[int, ...], found: Detections) -> None:
        """Take an image's boxes.

        Args:
            file: of the image.
            size: its height and width.
            found: on the CPU.
        """
        self._image += 1
        image = {"id": self._image, "file_name": file.as_posix(), "height": size[0], "width": size[1]}
        self._content["images"].append(image)
        for (x0, y0, x1, y1), score, category in zip(*(values.tolist() for values in found), strict=True):
            self._box += 1
            width, height = x1 - x0, y1 - y0
            self._content["annotations"].append(
                {
                    "id": self._box,
                    "image_id": self._image,
                    "category_id": category,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )
        if time.monotonic() - self._written >= _SHARE * self._cost:
            self.write()

    def write(self) -> None:
        """Write all boxes so far."""
        begin = time.monotonic()
        write_text(self._file, json.dumps(self._content))
        self._written = time.monotonic()
        self._cost = self._written - begin

    def _take_over(self, keep: Callable[[PurePath], bool]) -> None:
        try:
            earlier = json.loads(self._file.read_text())
            images = [image for image in earlier["images"] if keep(PurePath(image["file_name"]))]
            kept = {image["id"] for image in images}
            boxes = [box for box in earlier["annotations"] if box["image_id"] in kept]
            same = earlier["categories"] == self._content["categories"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._file}: holds no boxes in COCO's format; give another --output") from error
        if images and not same:
            raise InputError(f"{self._file}: has boxes of other classes; give another --output")
        self._content |= {"images": images, "annotations": boxes}


class PredictionIndex:
    """`predicted.json` in a folder of results: the images' folder, and by the results' names the images below it.

    Attributes:
        earlier: the images of earlier runs, by the results' names.
    """

    earlier: dict[PurePath, PurePath]

    def __init__(self, folder: Path, source: Source) -> None:
        """Compare what a run will write with what is there.

        Args:
            folder: of results.
            source: of the run.

        Raises:
            InputError: there are results of other images of the same names, or of another folder.
        """
        self._file, self._folder = folder / INDEX, str(source.root.resolve())
        of, self.earlier = self._read()
        if self.earlier and of != self._folder:
            raise InputError(f"{folder}: has the results of {of}; give another --output to those of {self._folder}")
        _check_distinct(folder, source.places, self.earlier)
        _check_distinct(folder, self.earlier, source.places)
        self._places = {**self.earlier, **source.places}

    def write(self) -> None:
        """Write what the folder will hold after the run."""
        images = {name.as_posix(): place.as_posix() for name, place in self._places.items()}
        write_text(self._file, json.dumps({"folder": self._folder, "images": images}, indent=1))

    def _read(self) -> tuple[str, dict[PurePath, PurePath]]:
        if not self._file.is_file():
            return "", {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return content["folder"], {PurePath(name): PurePath(place) for name, place in content["images"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._file}: is no record of predictions; give another --output") from error


def _check_distinct(folder: Path, places: Mapping[PurePath, PurePath], others: Mapping[PurePath, PurePath]) -> None:
    for name, place in places.items():
        for taken in (name, *name.parents):  # the frames of a video have a folder of its name
            if others.get(taken, place) != place:
                raise InputError(
                    f"{folder / MASKS / name}: would be of {place} and of {others[taken]}; give one of them another "
                    "--output"
                )
