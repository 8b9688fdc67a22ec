"""Mappers from a dataset dict to the model's input, for labeled, unlabeled and evaluation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetFromList
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..config.validation import check_section
from ..structures import IGNORE
from ..utils.errors import InputError
from .detection_cache import DetectionCache
from .file_cache import image_cache
from .image_io import ImageReader, UnreadableImageError, label_file, read_record, read_record_mask
from .pixel_values import PixelLayout
from .transforms.geometry import RandomView, View
from .transforms.photometric import IntensityView, JitterView, StrongView

StoredLabels = Callable[[Mapping[str, Any], tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""A dataset dict and the (height, width) of its image -> stored class ids (H, W) uint8, and weights (H, W) float32."""

MIN_VISIBLE = 2.0
"""A box stays in a view if its visible part, padding excluded, is at least this wide and high in pixels."""


class LabeledMapper:
    """A random view of a labeled image, with its mask and, if the dataset dict has some, its boxes.

    As every mapper of Detectron2 it takes a dataset dict and returns a dict for the model:
    `file_name`, `image_id`, `height` and `width` (of the file), `image` (3, H, W) uint8 RGB, or (C, H, W) float32 in
    0..255 where images have another `PixelLayout`, `sem_seg` (H, W) int64 class ids with `IGNORE` in the padding,
    `valid` (H, W) bool, False in the padding, `instances` with `gt_boxes` and `gt_classes` (detector class ids), and
    with `strong` a strong view, as of `UnlabeledMapper`.
    """

    @configurable
    def __init__(
        self,
        *,
        view: RandomView,
        num_classes: int,
        reader: ImageReader | None = None,
        strong: StrongView | None = None,
        on_device: bool = False,
    ) -> None:
        """Prepare the mapper.

        Args:
            view: draws the geometry.
            num_classes: number of semantic classes; masks with other ids are errors.
            reader: of images and masks; by default one without a cache.
            strong: changes the colors of the view; None: there is no strong one.
            on_device: draw the operations of the strong view alone.
        """
        self.view = view
        self.num_classes = num_classes
        self.reader = reader or ImageReader()
        self.strong = strong
        self.on_device = on_device

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """From `INPUT`, and the number of classes that `setup_datasets` has filled in."""
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES < 1:
            raise InputError("MODEL.SEM_SEG_HEAD.NUM_CLASSES: is 0; call setup_datasets(cfg) first")
        return {
            "view": build_view(cfg),
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "reader": build_image_reader(cfg),
            "strong": build_strong_view(cfg) if cfg.INPUT.STRONG.LABELED else None,
            "on_device": _on_device(cfg),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image.

        Raises:
            InputError: image or mask cannot be read, or do not fit each other or the classes.
        """
        image = self.reader.image(dataset_dict)
        mask = read_labels(dataset_dict, image.shape[:2], self.num_classes, self.reader.mask)
        view = self.view(image)
        sample = _identity(dataset_dict, image)
        sample["image"] = _to_tensor(view.image)
        sample["sem_seg"] = torch.from_numpy(view.transform.apply_segmentation(mask).astype(np.int64))
        sample["valid"] = _valid(view)
        if self.strong is not None:
            sample |= _strong_views(view, self.strong, 1, self.on_device)
        if "boxes" in dataset_dict:
            boxes, keep = _move_boxes(dataset_dict["boxes"], view)
            classes = torch.from_numpy(dataset_dict["box_classes"])
            size = (view.image.shape[0], view.image.shape[1])
            sample["instances"] = Instances(size, gt_boxes=boxes[keep], gt_classes=classes[keep])
        return sample


class PasteMapper:
    """`LabeledMapper`, with a second image of the list in some samples, to paste from (`copy_paste`).

    The second image is a sample of its own under `paste`, of the same size but of another range of scales.
    """

    def __init__(self, cfg: CfgNode, records: Sequence[dict[str, Any]]) -> None:
        """Prepare the mapper.

        Args:
            cfg: as for `LabeledMapper`, with the keys of `INPUT.PASTE`.
            records: the labeled dataset dicts, from which the second image is drawn.
        """
        self.mapper = LabeledMapper(cfg)
        second = cfg.clone()
        second.defrost()
        second.INPUT.SCALE_RANGE = cfg.INPUT.PASTE.SCALE_RANGE
        self.second = LabeledMapper(second)
        self.records = DatasetFromList(list(records), copy=False)
        self.prob = cfg.INPUT.PASTE.PROB

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image, and perhaps a second one; raises what `LabeledMapper` raises."""
        sample = self.mapper(dataset_dict)
        if np.random.rand() < self.prob:
            sample["paste"] = self.second(self.records[np.random.randint(len(self.records))])
        return sample


class UnlabeledMapper:
    """A weak view of an unlabeled image and strong views of the same crop; it never opens a mask.

    Returns `file_name`, `image_id`, `height`, `width`, `image` (the weak view, as of `LabeledMapper`), `valid` (H, W)
    bool, False in the padding; `strong` (V, C, H, W) of the same type or, where these are made on the model's device,
    `operations`: V lists of what to do to `image` (see `StrongView.draw`); with a cache `detections`: the `Detections`
    that the view shows, in its pixels; and, with stored pseudo-labels, `pseudo_labels` (H, W) int64, `IGNORE` in the
    padding, and `pseudo_weight` (H, W) float32.
    """

    @configurable
    def __init__(
        self,
        *,
        view: RandomView,
        strong: StrongView,
        views: int,
        on_device: bool = False,
        cache: DetectionCache | None = None,
        stored: StoredLabels | None = None,
        reader: ImageReader | None = None,
    ) -> None:
        """Prepare the mapper.

        Args:
            view: draws the geometry, which the strong views share.
            strong: changes the colors of the weak view.
            views: number of strong views.
            on_device: draw the operations of the strong views alone.
            cache: adds each image's detections to its sample.
            stored: adds each image's pseudo-labels.
            reader: of images; by default one without a cache.
        """
        self.view = view
        self.strong = strong
        self.views = views
        self.on_device = on_device
        self.cache = cache
        self.stored = stored
        self.reader = reader or ImageReader()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """From `INPUT`."""
        return {
            "view": build_view(cfg),
            "strong": build_strong_view(cfg),
            "views": cfg.INPUT.STRONG.VIEWS,
            "on_device": _on_device(cfg),
            "reader": build_image_reader(cfg),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image.

        Raises:
            UnreadableImageError: if the image cannot be read.
            InputError: the cached detections, or the stored pseudo-labels, are of an image of another size.
        """
        image = self.reader.image(dataset_dict)
        return self.sample(dataset_dict, image, self.view(image))

    def sample(self, dataset_dict: dict[str, Any], image: np.ndarray, view: View) -> dict[str, Any]:
        """The sample of one view.

        Args:
            dataset_dict: of the image.
            image: (H, W, C), as it was read.
            view: the weak one of it.
        """
        sample = _identity(dataset_dict, image)
        sample.update(image=_to_tensor(view.image), valid=_valid(view))
        sample |= _strong_views(view, self.strong, self.views, self.on_device)
        if self.cache is not None:
            detections = self.cache.detections(dataset_dict, (image.shape[0], image.shape[1]))
            boxes, keep = _move_boxes(detections.boxes.numpy(), view)
            sample["detections"] = detections._replace(boxes=boxes.tensor).select(keep)
        if self.stored is not None:
            labels, weight = self.stored(dataset_dict, (image.shape[0], image.shape[1]))
            sample["pseudo_labels"] = torch.from_numpy(view.transform.apply_segmentation(labels).astype(np.int64))
            sample["pseudo_weight"] = torch.from_numpy(view.transform.apply_segmentation(weight))
        return sample


class EvalMapper:
    """The whole image, unchanged. The keys of the dataset dict stay, for Detectron2's evaluators."""

    def __init__(self, lenient: bool = False, cache: DetectionCache | None = None) -> None:
        """Prepare the mapper.

        Args:
            lenient: put the error in place of an image that cannot be read, instead of raising it.
            cache: adds each image's detections.
        """
        self.lenient = lenient
        self.cache = cache

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read one image: adds `image` (see `LabeledMapper`), `height` and `width` and, with a cache, `detections`.

        Raises:
            UnreadableImageError: the image cannot be read; if lenient, the error is returned as `image`.
            InputError: the cached detections are of an image of another size.
        """
        try:
            image = read_record(dataset_dict)
        except UnreadableImageError as error:
            if not self.lenient:
                raise
            return {**dataset_dict, "image": error}
        item = {**dataset_dict, **_identity(dataset_dict, image), "image": _to_tensor(image)}
        if self.cache is not None:
            item["detections"] = self.cache.detections(dataset_dict, (image.shape[0], image.shape[1]))
        return item


def build_image_reader(cfg: CfgNode) -> ImageReader:
    """The reader of training images, with the cache that `DATALOADER` describes.

    Raises:
        InputError: an invalid value below DATALOADER, or a cache that this system does not have.
    """
    check_section(cfg, "DATALOADER")
    return ImageReader(image_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.CACHE_GB))


def build_view(cfg: CfgNode) -> RandomView:
    """The geometry that `INPUT` describes; padding has the color that normalization makes zero.

    Raises:
        InputError: an invalid value below INPUT.
    """
    check_section(cfg, "INPUT")
    keys = cfg.INPUT
    return RandomView(
        keys.SCALE_RANGE,
        keys.CROP_SIZE,
        cfg.MODEL.PIXEL_MEAN,
        keys.RANDOM_FLIP == "horizontal",
        scale_base=keys.SCALE_BASE,
        scale_side=keys.SCALE_SIDE,
        scale_balanced=keys.SCALE_BALANCED,
        resize=keys.RESIZE,
    )


def build_strong_view(cfg: CfgNode) -> StrongView:
    """The change of colors that `INPUT.STRONG` describes, of images with the channels `INPUT.CHANNELS`."""
    keys, rgb = cfg.INPUT.STRONG, PixelLayout.from_config(cfg).rgb
    if keys.KIND == "jitter":
        return JitterView(keys.JITTER, keys.JITTER_PROB, keys.GRAY_PROB, keys.BLUR_PROB, keys.BLUR_SIGMA, rgb)
    return IntensityView(keys.MAX_OPERATIONS, keys.BLUR_SIGMA, rgb)


def _on_device(cfg: CfgNode) -> bool:
    """Whether strong views are made on the model's device."""
    device = cfg.INPUT.STRONG.DEVICE
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available()
    return device == "model" or (device == "auto" and on_gpu)


def _strong_views(view: View, strong: StrongView, count: int, on_device: bool) -> dict[str, Any]:
    """`strong` or `operations` of a sample, see `UnlabeledMapper`."""
    if on_device:
        return {"operations": [strong.draw() for _ in range(count)]}
    views = [_to_tensor(strong(view.image)) for _ in range(count)]
    return {"strong": torch.stack(views) if views else _to_tensor(view.image)[None][:0]}


def read_labels(
    dataset_dict: dict[str, Any],
    size: Sequence[int],
    num_classes: int,
    read: Callable[[Mapping[str, Any]], np.ndarray] = read_record_mask,
) -> np.ndarray:
    """Read the mask of a dataset dict and check it.

    Args:
        dataset_dict: with `sem_seg_file_name`; see `Description.records`.
        size: (height, width) of the image.
        num_classes: number of semantic classes.
        read: gives the mask of a dataset dict.

    Returns:
        (H, W) uint8 class ids, `IGNORE` where there is none.

    Raises:
        InputError: `file: what is wrong; how to mend it`.
    """
    file, mask = label_file(dataset_dict), read(dataset_dict)
    if mask.shape != tuple(size):
        turned = (
            "; it may be turned by its EXIF orientation, as its mask must be (or write `exif: ignore` into the YAML)"
            if mask.shape == tuple(size)[::-1]
            else ""
        )
        raise InputError(
            f"{file}: is {mask.shape[1]}x{mask.shape[0]} but its image {dataset_dict['file_name']} is "
            f"{size[1]}x{size[0]}; make them equal{turned}"
        )
    outside = mask[(mask >= num_classes) & (mask != IGNORE)]
    if outside.size:
        raise InputError(
            f"{file}: holds the ids {np.unique(outside).tolist()}, but there are {num_classes} classes; "
            f"mend the mask, or 'classes' and 'ignore' of the data set's YAML"
        )
    return mask


def _valid(view: View) -> Tensor:
    valid = torch.zeros(view.image.shape[:2], dtype=torch.bool)
    height, width = view.transform.content
    valid[:height, :width] = True
    return valid


def _move_boxes(boxes: np.ndarray, view: View) -> tuple[Boxes, Tensor]:
    """The boxes (N, 4) in pixels of the view, cut to what it shows, and which of them (N,) bool are still visible."""
    moved = Boxes(torch.from_numpy(view.transform.apply_box(boxes).astype(np.float32)))
    moved.clip(view.transform.content)
    return moved, moved.nonempty(threshold=MIN_VISIBLE - 1e-3)


def _identity(dataset_dict: dict[str, Any], image: np.ndarray) -> dict[str, Any]:
    height, width = image.shape[:2]
    sample: dict[str, Any] = {key: dataset_dict[key] for key in ("file_name", "image_id") if key in dataset_dict}
    sample.update(height=height, width=width)
    return sample


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
