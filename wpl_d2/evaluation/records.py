"""The images that something can be measured on."""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetCatalog

from ..data.loader import missing_mask
from ..errors import InputError
from .left_out import NOTHING, LeftOut


def records_with_masks(dataset_name: str, left_out: LeftOut = NOTHING) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, all with "sem_seg_file_name".

    Args:
        dataset_name: registered.
        left_out: takes the images without a mask.

    Raises:
        InputError: an image has no mask, and nothing may be left out.
    """
    records = []
    for record in DatasetCatalog.get(dataset_name):
        if "sem_seg_file_name" in record:
            records.append(record)
        else:
            left_out.note(record, InputError(missing_mask(record, dataset_name)))
    return records
