"""What labels of another format than masks of class ids cost: to convert once, and to read from then on."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from ..data import Description, load_description, read_mask
from ..data.image_io import read_record_mask
from ..structures import IGNORE
from ..utils.errors import InputError
from .evaluation import take_turns

_ROUNDS = 9
_LIST = "labeled"


def compare_labels(cfg: CfgNode, masks: int) -> dict[str, Any]:
    """Seconds of CPU time to convert a mask, to read it then, and to read it as the index PNG that a user would save.

    The labels are those of DATASETS.TRAIN[0]. If they are index masks, they are stored as masks of colors first.

    Args:
        cfg: with its data set registered.
        masks: how many of them are read, at most.

    Returns:
        `label_format`, `masks`, `convert_mask_s`, `read_mask_s`, `read_index_mask_s`, and `read_to_index`, the ratio of
        the last two, which took turns.

    Raises:
        InputError: the data set has no YAML, or a label cannot be read.
    """
    if not cfg.DATASETS.DESCRIPTION:
        raise InputError("DATASETS.DESCRIPTION: is empty; name the YAML of a data set with labels")
    description = load_description(cfg.DATASETS.DESCRIPTION)
    name = cfg.DATASETS.TRAIN[0].removeprefix(f"{description.name}_")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not description.labels:
            description, name = _as_colors(description.records(name)[:masks], description, folder), _LIST
        with _cache_in(folder / "cache"):
            start = time.process_time()
            records = [record for record in description.records(name) if "sem_seg_file_name" in record]
            convert = (time.process_time() - start) / max(1, len(records))
        records = records[:masks]
        index = [folder / f"index_{number}.png" for number in range(len(records))]
        for record, file in zip(records, index, strict=True):
            Image.fromarray(read_record_mask(record)).save(file)
        calls = {
            "ours": lambda: [read_record_mask(record) for record in records],
            "index": lambda: [read_mask(file) for file in index],
        }
        (_, ours), (_, theirs) = take_turns(calls, _ROUNDS, "cpu").values()
    return {
        "label_format": description.labels["format"],
        "masks": len(records),
        "convert_mask_s": convert,
        "read_mask_s": ours / len(records),
        "read_index_mask_s": theirs / len(records),
        "read_to_index": ours / theirs,
    }


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """An empty cache, so that nothing is found in it."""
    before = os.environ.get("WPL_D2_CACHE")
    os.environ["WPL_D2_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WPL_D2_CACHE"]
        os.environ |= {"WPL_D2_CACHE": before} if before else {}


def _as_colors(records: list[dict[str, Any]], description: Description, folder: Path) -> Description:
    """A data set of masks of colors, which its images' masks are written to."""
    classes = description.classes
    colors = np.array([(index, IGNORE - index, 0) for index in range(IGNORE + 1)], dtype=np.uint8)
    records = [record for record in records if "sem_seg_file_name" in record]
    for number, record in enumerate(records):
        Image.fromarray(colors[read_record_mask(record)]).save(folder / f"{number}.png")
    (folder / "list.txt").write_text("\n".join(map(str, range(len(records)))))
    table = {name: colors[index].tolist() for index, name in enumerate(classes)} | {"ignore": colors[IGNORE].tolist()}
    return Description(
        name="colors",
        root=folder,
        image="{id}.jpg",
        mask="{id}.png",
        classes=classes,
        lists={_LIST: "list.txt"},
        labels={"format": "color_masks", "colors": table},
    )
