"""Where the boxes of an image come from when pseudo-labels are judged, and its true boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from torch import Tensor

from ..data import attach_component_boxes
from ..data.detection_cache import image_key, load_detection_cache
from ..modeling import UnifiedSegDet
from ..structures import ClassBoxes, Detections
from .left_out import NOTHING, LeftOut, records_with_masks


class BoxSource:
    """The model's own detector, or the cached boxes of another one; false where there is neither."""

    def __init__(self, cfg: Any, model: UnifiedSegDet, dataset_name: str, left_out: LeftOut = NOTHING) -> None:
        """Read the boxes of a data set. All processes must do it.

        Args:
            cfg: `MODEL.DETECTOR` says where boxes come from.
            model: its detector is asked, if it has one.
            dataset_name: registered, with masks.
            left_out: takes the images without a mask that can be read.

        Raises:
            InputError: an image has no mask that can be read and nothing may be left out, or the cached boxes do not
                fit.
        """
        records = records_with_masks(dataset_name, left_out)
        self._model = model
        self._cache = load_detection_cache(cfg, MetadataCatalog.get(dataset_name).stuff_classes, records)
        self._truth: dict[str, ClassBoxes] = {}
        if self:
            objects = torch.tensor(MetadataCatalog.get(dataset_name).object_ids)
            for record in attach_component_boxes(records, objects.tolist(), cfg.DATASETS.MIN_BOX_AREA, left_out.note):
                pair = torch.from_numpy(record["boxes"]), objects[torch.from_numpy(record["box_classes"])]
                self._truth[image_key(record)] = pair

    def __bool__(self) -> bool:
        return self._cache is not None or self._model.has_detector

    def find(self, item: Mapping[str, Any], features: dict[str, Tensor]) -> Detections | None:
        """All boxes of an image, whatever their score; None where there is no source.

        Args:
            item: of `EvalMapper`.
            features: the model's, of the image.
        """
        size = (item["image"].shape[-2], item["image"].shape[-1])
        if self._cache is not None:
            return self._cache.detections(item, size).to(self._model.device)
        return self._model.detect(features, [size])[0] if self._model.has_detector else None

    def truth(self, item: Mapping[str, Any]) -> ClassBoxes:
        """The boxes of the mask's components, (M, 4) xyxy in pixels of the image, and their semantic class ids."""
        return self._truth[image_key(item)]
