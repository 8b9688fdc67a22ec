"""Where predictions go: masks, overlays, boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import save_png, write_text, writing
from ..visualization import draw_boxes, overlay
from .deployed import Found
from .predictor import Prediction
from .sources import MASKS, OVERLAYS, Frame


class Results:
    """A folder of results, for use in a `with` statement.

    `masks/NAME.png`: a pixel's value is its class id; `overlays/NAME.png`, or of a video `overlays/VIDEO.mp4`: the
    image in the classes' colours with its boxes; with a detector `boxes.json` in COCO's format, whose category ids are
    the same class ids.

    Attributes:
        count: of the images so far.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], boxes: bool, video: tuple[PurePath, float] | None
    ) -> None:
        """Begin; nothing is written before the first prediction.

        Args:
            folder: made where it is missing.
            about: of the model.
            boxes: whether there is a detector.
            video: name and frames a second, see `Source`.

        Raises:
            InputError: the folder has masks that no earlier prediction wrote, such as a data set's.
        """
        if (folder / MASKS).is_dir() and not (folder / OVERLAYS).is_dir():
            raise InputError(
                f"{folder / MASKS}: is no earlier result, and could be written over; give another --output"
            )
        self.folder, self.about, self.video = folder, about, video
        names = self.about["classes"]
        categories = [{"id": index, "name": names[index]} for index in about["objects"]]
        self._coco: dict[str, Any] | None = None
        if boxes:
            self._coco = {"info": {}, "images": [], "annotations": [], "categories": categories}
        self._writer: cv2.VideoWriter | None = None
        self.count = 0

    def __enter__(self) -> Results:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the video and write the boxes, also of a run that was stopped."""
        if self._writer is not None:
            self._writer.release()
        if self._coco is not None:
            write_text(self.folder / "boxes.json", json.dumps(self._coco))

    def add(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> None:
        """Write one image's results.

        Args:
            frame: names the image.
            image: (H, W, 3) uint8 RGB.
            prediction: of the image.
        """
        picture = image.transpose(2, 0, 1)
        if prediction.labels is not None:
            _save(prediction.labels, self.folder / MASKS / f"{frame.name}.png")
            picture = overlay(picture, prediction.labels, self.about["colors"])
        if prediction.found is not None:
            picture = self._draw(picture, prediction.found)
            self._note(frame.file, image.shape[:2], prediction.found)
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
        if self.video is None:
            _save(pixels, self.folder / OVERLAYS / f"{frame.name}.png")
        else:
            self._append(pixels, *self.video)
        self.count += 1

    def _draw(self, picture: np.ndarray, found: Found) -> np.ndarray:
        names, colors, ids = self.about["classes"], self.about["colors"], found.classes.tolist()
        texts = [f"{names[index]} {score:.2f}" for index, score in zip(ids, found.scores.tolist(), strict=True)]
        return draw_boxes(picture, found.boxes, texts, [colors[index] for index in ids])

    def _note(self, file: PurePath, size: tuple[int, ...], found: Found) -> None:
        assert self._coco is not None
        images, annotations = self._coco["images"], self._coco["annotations"]
        images.append({"id": len(images) + 1, "file_name": file.as_posix(), "height": size[0], "width": size[1]})
        for (x0, y0, x1, y1), score, category in zip(*(values.tolist() for values in found), strict=True):
            width, height = x1 - x0, y1 - y0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": category,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )

    def _append(self, pixels: np.ndarray, name: PurePath, rate: float) -> None:
        if self._writer is None:
            file = self.folder / OVERLAYS / f"{name}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(file), code, rate, (pixels.shape[1], pixels.shape[0]))
            if not self._writer.isOpened():
                raise InputError(f"{file}: OpenCV cannot write MP4 here; give single images instead of the video")
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))


def _save(pixels: np.ndarray, file: Path) -> None:
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    save_png(Image.fromarray(pixels), file)
