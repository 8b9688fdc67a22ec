"""Writing predictions: masks in a format, overlays, boxes, and an index of the images they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch

from ..data.windows import Window
from ..structures import Detections
from ..utils.buckets import OutputFolder
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, replace_file, write_text
from ..visualization import draw_boxes, overlay, render
from .coco_file import CocoFile
from .huge_images import HugeImage, Overview, Part
from .mask_formats import MASK_FORMATS
from .mask_formats.index_png import write_png
from .result_names import SUFFIX
from .runtime_model import Prediction
from .sources import BOXES, COCO_MASKS, CONFIDENCE, INDEX, OVERLAYS, PROBABILITIES, Frame, Source


class Outcome(NamedTuple):
    """What became of an image.

    Attributes:
        file: the image's, as of its `Frame`.
        size: (height, width) in pixels, (0, 0) if it was skipped.
        annotations: of the image in COCO's format, by the name of the file that they belong into.
        ignored: as of its `Frame`.
        skipped: why it has no results, or "".
        undrawn: why it has no overlay, or "".
    """

    file: PurePath
    size: tuple[int, int] = (0, 0)
    annotations: Mapping[str, list[dict[str, Any]]] = {}
    ignored: tuple[str, ...] = ()
    skipped: str = ""
    undrawn: str = ""

    def to_plain(self) -> tuple[Any, ...]:
        """As plain containers."""
        return (self.file.as_posix(), *self[1:])

    @classmethod
    def from_plain(cls, values: Sequence[Any]) -> Outcome:
        """From `to_plain`."""
        file, *others = values
        return cls(PurePath(file), *others)


class ResultFiles:
    """Writes what each image has of its own: masks, maps and overlays.

    Masks are written in one of `MASK_FORMATS`. `overlays/NAME.png`, or `overlays/VIDEO.mp4` of a video, shows the
    image in the classes' colors with its boxes. Where predictions have them, `confidence/NAME.png` is the probability
    of each label in 0..255, and `probabilities/NAME.npy` those of all classes, (C, H, W) float16.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any], source: Source, mask_format: str) -> None:
        """Prepare; nothing is changed.

        Args:
            folder: of the results.
            metadata: of the model.
            source: of the images, as files of this machine.
            mask_format: a name in `MASK_FORMATS`.

        Raises:
            InputError: the format is not for such images.
        """
        self.folder, self.metadata, self.video, self.layout = folder, metadata, source.video, source.layout
        self.masks = MASK_FORMATS[mask_format](folder, metadata, source)
        self._video: cv2.VideoWriter | None = None
        self._draws = True

    def close(self) -> None:
        """Finish the video."""
        if self._video is not None:
            self._video.release()

    def add(self, frame: Frame, image: np.ndarray, prediction: Prediction) -> Outcome:
        """Write the mask and maps of an image.

        Args:
            frame: the image's name and file.
            image: as of its `Frame`.
            prediction: of the image.

        Raises:
            UnwritableError: they cannot be written.
        """
        annotations = {}
        if prediction.labels is not None:
            annotations[self.masks.place] = list(self.masks.add(frame, prediction.labels))
        if prediction.confidence is not None:
            write_png(prediction.confidence, self.folder / CONFIDENCE / f"{frame.name}{SUFFIX}")
        if prediction.probabilities is not None:
            _write_array(prediction.probabilities, self.folder / PROBABILITIES / f"{frame.name}.npy")
        if prediction.detections is not None:
            annotations[BOXES] = list(_annotations(prediction.detections))
        height, width = image.shape[:2]
        return Outcome(frame.file, (height, width), annotations, frame.ignored)

    def add_parts(self, frame: Frame, parts: Iterable[Part]) -> tuple[Outcome, Overview]:
        """Write the mask of a huge image while it is predicted.

        Args:
            frame: the image's name and file.
            parts: of `predict_parts`; its errors are passed on.

        Raises:
            InputError: the format holds whole masks in memory.
            UnwritableError: they cannot be written.
        """
        huge = cast(HugeImage, frame.image)
        size, overview = huge.size, Overview(huge)
        found = [Detections.none()]

        def masks() -> Iterator[tuple[Window, np.ndarray]]:
            for window, image, prediction in parts:
                overview.add(window, image, cast(np.ndarray, prediction.labels))
                found.append(prediction.detections or Detections.none())
                yield window, cast(np.ndarray, prediction.labels)

        self.masks.add_parts(frame, size, masks())
        boxes = list(_annotations(Detections(*map(torch.cat, zip(*found, strict=True)))))
        return Outcome(frame.file, size, {BOXES: boxes}, frame.ignored), overview

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
            write_png(pixels, self.folder / OVERLAYS / f"{frame.name}{SUFFIX}")
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


class PredictionWriter:
    """What a folder has of all images together, and the checks before anything is written; a context manager.

    With a detector, `boxes.json` has the boxes in COCO's format, with the class ids as category ids; formats of masks
    may have such a file, too. `predicted.json` maps the names of results to their images. What each image has of its
    own is written by `ResultFiles`.

    Attributes:
        folder: of the results.
        mask_format: a name in `MASK_FORMATS`.
        count: images written so far.
        skipped: those that were not.
        without_overlay: those whose overlay failed.
    """

    def __init__(
        self,
        folder: str | Path,
        metadata: Mapping[str, Any],
        boxes: bool,
        source: Source,
        mask_format: str = "index_png",
    ) -> None:
        """Check the folder; nothing in it is changed before `begin`.

        Args:
            folder: created if missing; or the URL of one in a bucket.
            metadata: of the model.
            boxes: whether the model has a detector.
            source: of the images.
            mask_format: a name in `MASK_FORMATS`.

        Raises:
            InputError: the folder has masks that no earlier prediction wrote, such as a data set's, or results of
                other images that would be overwritten; or the format is not for such images.
        """
        self.folder, self.metadata, self.source, self.mask_format = OutputFolder(folder), metadata, source, mask_format
        masks = MASK_FORMATS[mask_format](self.folder.path, metadata, source)
        if self.folder.exists(masks.place) and not any(map(self.folder.exists, (OVERLAYS, INDEX))):
            raise InputError(
                f"{self.folder.name}/{masks.place}: is not an earlier result, and could be written over; give another "
                "--output"
            )
        self.folder.fetch(INDEX, BOXES, COCO_MASKS)
        self._index = PredictionIndex(self.folder.path, source)
        own = {*source.paths.values()} if source.video is None else {*source.paths}
        others = bool(self._index.earlier)

        def keep(file: PurePath) -> bool:
            return others and own.isdisjoint((file, file.parent))

        categories = {masks.place: masks.categories}
        if boxes:
            categories[BOXES] = [{"id": index, "name": metadata["classes"][index]} for index in metadata["objects"]]
        self._coco = {
            name: CocoFile(self.folder.path / name, of_file, keep)
            for name, of_file in categories.items()
            if of_file is not None
        }
        self.count = 0
        self.skipped: list[Outcome] = []
        self.without_overlay: list[Outcome] = []

    def __enter__(self) -> PredictionWriter:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the files, also after an error or interruption."""
        with closing(self.folder), ExitStack() as files:
            files.callback(self.folder.publish)
            for file in self._coco.values():
                files.callback(file.close)

    def begin(self) -> None:
        """Write the index, by which a later run knows what is in the folder."""
        self._index.write()
        self.folder.publish(INDEX)

    def complete(self) -> None:
        """Write the files that hold several images' results."""
        for file in self._coco.values():
            file.write()
        self.folder.publish()

    def add(self, outcome: Outcome) -> None:
        """Add what became of an image.

        Raises:
            UnwritableError: there is no room on the disk.
        """
        if outcome.skipped:
            self.skipped.append(outcome)
            return
        for name, file in self._coco.items():
            if name in outcome.annotations:
                file.add(outcome.file, outcome.size, outcome.annotations[name])
        self.source.note_ignored(outcome.file, outcome.ignored)
        self.without_overlay += [outcome] if outcome.undrawn else []
        self.count += 1


def _write_array(array: np.ndarray, file: Path) -> None:
    with clear_write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as opened:  # of a path NumPy would change the suffix
            np.save(opened, array)

    replace_file(file, write, array.nbytes)


def _annotations(detections: Detections) -> Iterator[dict[str, Any]]:
    """Detections in COCO's format."""
    for (x0, y0, x1, y1), score, category in zip(*(values.tolist() for values in detections), strict=True):
        box = [x0, y0, x1 - x0, y1 - y0]
        yield {"category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": score}


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
        self._file, self._folder = folder / INDEX, source.place
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
                    f"{folder}: the result {name} would be of {path} and of {others[taken]}; give one of them another "
                    "--output"
                )
