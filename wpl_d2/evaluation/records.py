"""The images that something can be measured on."""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetCatalog

from ..data.loader import missing_mask
from ..errors import InputError


def records_with_masks(dataset_name: str) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, all with "sem_seg_file_name".

    Raises:
        InputError: an image has no mask.
    """
    records = DatasetCatalog.get(dataset_name)
    for record in records:
        if "sem_seg_file_name" not in record:
            raise InputError(missing_mask(record, dataset_name))
    return records
