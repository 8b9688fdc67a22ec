"""Writing predictions: masks, overlays, boxes in COCO's format, and an index of the images they belong to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from ..structures import Detections
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, replace_file, write_text
from ..visualization import draw_boxes, overlay, render
from .runtime_model import Prediction
from .sources import BOXES, INDEX, MASKS, OVERLAYS, SUFFIX, Frame, Source


class PredictionWriter:
    """Writes predictions to a folder; a context manager.

    `masks/NAME.png` has class ids as pixel values. `overlays/NAME.png`, or `overlays/VIDEO.mp4` of a video, shows the
    image in the classes' colors with its boxes. With a detector, `boxes.json` has the boxes in COCO's format, with the
    class ids as category ids. `predicted.json` maps each NAME to its image.

    Attributes:
        count: images written so far.
        without_overlay: those whose overlay failed.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any], boxes: bool, source: Source) -> None:
        """Check the folder; nothing is written before the first prediction.

        Args:
            folder: created if missing.
            metadata: of the model.
            boxes: whether the model has a detector.
            source: of the images.

        Raises:
            InputError: the folder has masks that no earlier prediction wrote, such as a data set's, or results of
                other images that would be overwritten.
        """
        if (folder / MASKS).is_dir() and not (folder / OVERLAYS).is_dir():
            raise InputError(
                f"{folder / MASKS}: is not an earlier result, and could be written over; give another --output"
            )
        self.folder, self.metadata, self.video, self.layout = folder, metadata, source.video, source.layout
        self._index = PredictionIndex(folder, source)
        self._boxes: DetectionsFile | None = None
        if boxes:
            categories = [{"id": index, "name": metadata["classes"][index]} for index in metadata["objects"]]
            own = {*source.paths.values()} if source.video is None else {*source.paths}
            others = bool(self._index.earlier)
            self._boxes = DetectionsFile(
                folder / BOXES, categories, lambda file: others and own.isdisjoint((file, file.parent))
            )
        self._video: cv2.VideoWriter | None = None
        self._draws = True
        self.count = 0
        self.without_overlay: list[Frame] = []

    def __enter__(self) -> PredictionWriter:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the video and write the boxes, also after an error or interruption."""
        if self._video is not None:
            self._video.release()
        if self._boxes is not None:
            self._boxes.write()

    def add(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
        """Write the mask of an image and add its boxes.

        Args:
            frame: the image's name and file.
            image: as of its `Frame`.
            prediction: of the image.

        Raises:
            UnwritableError: they cannot be written.
        """
        if not self.count:
            self._index.write()
        if prediction.labels is not None:
            _save(prediction.labels, self.folder / MASKS / f"{frame.name}{SUFFIX}")
        if self._boxes is not None and prediction.detections is not None:
            self._boxes.add(frame.file, image.shape[:2], prediction.detections)
        self.count += 1

    def draw(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
        """Write the overlay of an image, or the next frame of a video's; args as of `add`.

        Raises:
            UnwritableError: it cannot be written.
            InputError: OpenCV cannot write the video; raised once only.
        """
        if not self._draws:
            return
        picture = render(image.transpose(2, 0, 1), self.layout)
        if prediction.labels is not None:
            picture = overlay(picture, prediction.labels, self.metadata["colors"])
        if prediction.detections is not None:
            picture = self._draw_boxes(picture, prediction.detections)
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
        if self.video is None:
            _save(pixels, self.folder / OVERLAYS / f"{frame.name}{SUFFIX}")
        else:
            self._append(pixels, *self.video)

    def _draw_boxes(self, picture: np.ndarray, detections: Detections) -> np.ndarray:
        names, colors, ids = self.metadata["classes"], self.metadata["colors"], detections.classes.tolist()
        texts = [f"{names[index]} {score:.2f}" for index, score in zip(ids, detections.scores.tolist(), strict=True)]
        return draw_boxes(picture, detections.boxes, texts, [colors[index] for index in ids])

    def _append(self, pixels: np.ndarray, name: PurePath, rate: float) -> None:
        if self._video is None:
            file = self.folder / OVERLAYS / f"{name}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(file), code, rate, (pixels.shape[1], pixels.shape[0]))
            if not self._video.isOpened():
                self._draws = False
                raise InputError(f"{file}: OpenCV cannot write MP4 here; give single images instead of the video")
        self._video.write(np.ascontiguousarray(pixels[..., ::-1]))


def _save(pixels: np.ndarray, file: Path) -> None:
    """Write a PNG of (H, W) gray or (H, W, 3) RGB uint8 pixels, in a sixth of Pillow's time."""
    with clear_write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(SUFFIX, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    replace_file(file, lambda unfinished: encoded.tofile(unfinished))


_MIN_RATIO = 20
"""Least ratio of the time between two writes of the file to the time of a write."""


class DetectionsFile:
    """Boxes in COCO's format in a JSON file that is complete at any time, up to the last few images.

    The file grows with each image: writing it after each would take ever longer.
    """

    def __init__(self, file: Path, categories: Sequence[dict[str, Any]], keep: Callable[[PurePath], bool]) -> None:
        """Load the boxes of earlier runs; nothing is written yet.

        Args:
            file: may exist.
            categories: of all boxes, in COCO's format.
            keep: called with an image's file; whether to keep its boxes of an earlier run.

        Raises:
            InputError: the file is something else, or has boxes to keep of other categories.
        """
        self._file = file
        self._content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": list(categories)}
        if file.is_file():
            self._load(keep)
        self._image = max((image["id"] for image in self._content["images"]), default=0)
        self._box = max((box["id"] for box in self._content["annotations"]), default=0)
        self._written, self._cost = 0.0, 0.0

    def add(self, file: PurePath, size: tuple[int, ...], detections: Detections) -> None:
        """Add an image's boxes, and write the file if the last write was long enough ago.

        Args:
            file: the image's.
            size: (height, width) of the image.
            detections: on the CPU.
        """
        self._image += 1
        image = {"id": self._image, "file_name": file.as_posix(), "height": size[0], "width": size[1]}
        self._content["images"].append(image)
        for (x0, y0, x1, y1), score, category in zip(*(values.tolist() for values in detections), strict=True):
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
        if time.monotonic() - self._written >= _MIN_RATIO * self._cost:
            self.write()

    def write(self) -> None:
        """Write all boxes so far."""
        start = time.monotonic()
        write_text(self._file, json.dumps(self._content))
        self._written = time.monotonic()
        self._cost = self._written - start

    def _load(self, keep: Callable[[PurePath], bool]) -> None:
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
    """`predicted.json`: the images' folder, and by the names of results the images' paths below it.

    Attributes:
        earlier: the paths of earlier runs, by name.
    """

    earlier: dict[PurePath, PurePath]

    def __init__(self, folder: Path, source: Source) -> None:
        """Check that a run's results do not collide with earlier ones.

        Args:
            folder: of the results.
            source: of the run.

        Raises:
            InputError: there are results of other images with the same names, or of another folder.
        """
        self._file, self._folder = folder / INDEX, str(source.root.resolve())
        of, self.earlier = self._read()
        if self.earlier and of != self._folder:
            raise InputError(f"{folder}: has the results of {of}; give another --output to those of {self._folder}")
        _check_distinct(folder, source.paths, self.earlier)
        _check_distinct(folder, self.earlier, source.paths)
        self._paths = {**self.earlier, **source.paths}

    def write(self) -> None:
        """Write the index of all results after the run."""
        images = {name.as_posix(): path.as_posix() for name, path in self._paths.items()}
        write_text(self._file, json.dumps({"folder": self._folder, "images": images}, indent=1))

    def _read(self) -> tuple[str, dict[PurePath, PurePath]]:
        if not self._file.is_file():
            return "", {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return content["folder"], {PurePath(name): PurePath(path) for name, path in content["images"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._file}: is not a record of predictions; give another --output") from error


def _check_distinct(folder: Path, paths: Mapping[PurePath, PurePath], others: Mapping[PurePath, PurePath]) -> None:
    for name, path in paths.items():
        for taken in (name, *name.parents):  # the frames of a video are in a folder of its name
            if others.get(taken, path) != path:
                raise InputError(
                    f"{folder / MASKS / name}: would be of {path} and of {others[taken]}; give one of them another "
                    "--output"
                )
