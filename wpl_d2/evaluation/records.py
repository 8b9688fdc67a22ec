"""The images that something can be measured on."""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetCatalog

from ..errors import InputError


def records_with_masks(dataset_name: str) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, all with "sem_seg_file_name".

    Raises:
        InputError: an image has no mask.
    """
    records = DatasetCatalog.get(dataset_name)
    for record in records:
        if "sem_seg_file_name" not in record:
            missing = record.get("sem_seg_missing", "its mask")
            raise InputError(
                f"{record['file_name']}: {missing} is missing, so {dataset_name} cannot be measured on; "
                "add it or take the image out of the list"
            )
    return records
