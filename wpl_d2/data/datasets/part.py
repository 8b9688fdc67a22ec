"""A part of a data set, for what would take too long on all of it."""

from __future__ import annotations

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import InputError
from ..sampler import counted_seed


def register_part(name: str, images: int) -> str:
    """Register some images of a data set, drawn at random from those with masks; of one name always the same ones.

    Args:
        name: in the `DatasetCatalog`.
        images: how many; all that have masks where they are fewer. A larger part holds the smaller ones.

    Returns:
        the part's name, NAME_part_IMAGES, with the metadata of the whole.

    Raises:
        InputError: fewer than 1 are asked for, or no image has a mask.
    """
    part = f"{name}_part_{images}"
    if images < 1:
        raise InputError(f"{name}: a part of {images} images is empty; take at least 1")
    if part in DatasetCatalog:
        return part
    records = [record for record in DatasetCatalog.get(name) if "sem_seg_file_name" in record]
    if not records:
        raise InputError(f"{name}: no image has a mask to measure on; add masks, or name another list")
    order = np.random.default_rng(counted_seed("part", name)).permutation(len(records))
    chosen = [records[i] for i in sorted(order[:images])]
    DatasetCatalog.register(part, lambda: [dict(record) for record in chosen])
    known = MetadataCatalog.get(name).as_dict()
    MetadataCatalog.get(part).set(**{key: value for key, value in known.items() if key != "name"})
    return part
