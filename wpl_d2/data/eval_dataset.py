"""A data set to evaluate on: its images, masks and true boxes, and which images are left out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from ..structures import ClassBoxes
from ..utils.errors import InputError
from .component_boxes import attach_component_boxes
from .detection_cache import DetectionCache
from .loader import build_test_loader, load_records, missing_mask
from .mappers import EvalMapper

Records = list[dict[str, Any]]


class EvalDataset:
    """A registered data set, read once for an evaluation of all models on it.

    Images that cannot be read or judged are errors; in a lenient data set they are left out, so that a file that breaks
    during training does not stop the run.

    Attributes:
        name: in the `DatasetCatalog`.
        records: the dataset dicts of all images.
        metadata: of the data set; see `register`.
        left_out: why images are left out, by their files; of this process until `gather_left_out`.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        key: str = "DATASETS.TEST",
        lenient: bool = False,
        min_box_area: int = 90,
        num_workers: int = 0,
    ) -> None:
        """Read the list of images.

        Args:
            name: in the `DatasetCatalog`.
            key: what names the data set in the config, for messages.
            lenient: leave images out instead of raising errors.
            min_box_area: components of a mask with fewer pixels are no objects.
            num_workers: processes that read images.

        Raises:
            InputError: the list is empty or cannot be read.
        """
        self.name = name
        self.records = load_records(name, key)
        self.metadata = MetadataCatalog.get(name)
        self.left_out: dict[str, str] = {}
        self._lenient = lenient
        self._min_box_area = min_box_area
        self._num_workers = num_workers

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The smallest box and the number of workers."""
        return {"min_box_area": cfg.DATASETS.MIN_BOX_AREA, "num_workers": cfg.DATALOADER.NUM_WORKERS}

    @property
    def classes(self) -> Sequence[str]:
        """The names of the semantic classes, by class id."""
        return self.metadata.stuff_classes

    @property
    def object_ids(self) -> Sequence[int]:
        """The semantic class ids of the detector's classes."""
        return self.metadata.get("object_ids", ())

    @cached_property
    def records_with_masks(self) -> Records:
        """The dataset dicts with `sem_seg_file_name`; the others are left out.

        Raises:
            InputError: an image has no mask, and the data set is not lenient.
        """
        for record in self.records:
            if "sem_seg_file_name" not in record:
                self.leave_out(record, InputError(missing_mask(record, self.name)))
        return [record for record in self.records if "sem_seg_file_name" in record]

    @cached_property
    def records_with_boxes(self) -> Records:
        """`records_with_masks` with the boxes of their masks (`attach_component_boxes`). All processes must ask for it.

        Raises:
            InputError: a mask is missing or cannot be read, and the data set is not lenient.
        """
        return attach_component_boxes(self.records_with_masks, self.object_ids, self._min_box_area, self.leave_out)

    @cached_property
    def true_boxes(self) -> Mapping[str, ClassBoxes]:
        """The boxes of `records_with_boxes`, by `image_id`."""
        ids = torch.tensor(self.object_ids, dtype=torch.int64)
        return {
            record["image_id"]: (torch.from_numpy(record["boxes"]), ids[torch.from_numpy(record["box_classes"])])
            for record in self.records_with_boxes
        }

    def loader(self, cache: DetectionCache | None = None) -> ReadableImages:
        """This process's share of the images, but for those that are left out, one at a time.

        Args:
            cache: adds `detections` to the items.
        """
        loader = build_test_loader(self.records, EvalMapper(lenient=True, cache=cache), self._num_workers)
        return ReadableImages(loader, self)

    def part(self, records: Records) -> EvalDataset:
        """Some of the images as a data set of their own, of which none is left out yet."""
        part = copy.copy(self)
        for name in ("records_with_masks", "records_with_boxes", "true_boxes"):
            part.__dict__.pop(name, None)  # what was computed of all images
        part.records, part.left_out = records, {}
        return part

    def leave_out(self, record: Mapping[str, Any], error: InputError) -> None:
        """Leave an image out of all that follows.

        Args:
            record: its dataset dict.
            error: what is wrong with its files; raised unless the data set is lenient.
        """
        if not self._lenient:
            raise error
        self.left_out.setdefault(record["file_name"], str(error))

    def gather_left_out(self) -> None:
        """Add what other processes left out. All processes must call it."""
        for left_out in comm.all_gather(self.left_out):
            self.left_out |= left_out


class ReadableImages:
    """What `EvalDataset.loader` gives: lists of one item of `EvalMapper`, as Detectron2's evaluation takes them."""

    def __init__(self, loader: Any, dataset: EvalDataset) -> None:
        """Wrap a loader whose mapper is lenient; images that it cannot read are left out of `dataset`."""
        self._loader = loader
        self._dataset = dataset

    def __len__(self) -> int:
        """The number of images, readable or not."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Records]:
        for (item,) in self._loader:
            if isinstance(item["image"], InputError):
                self._dataset.leave_out(item, item["image"])
            elif item["file_name"] not in self._dataset.left_out:
                yield [item]
