"""Registers the data set that a config names, and fills its classes into the config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ...utils.errors import InputError, suggest
from ..pixel_values import RGB
from ..sampler import counted_seed
from .folder import Description, class_names_and_colors, load_description, register
from .generators import generate_if_missing


def setup_datasets(cfg: CfgNode) -> None:
    """Register the data set of `DATASETS.DESCRIPTION` and fill its classes and channels into `cfg`, in place.

    Without a description only the names in the config are checked. Data sets that other code registered get names and
    colors for their classes if they lack them. A data set with a generator is made first, by one process of each
    machine.

    Args:
        cfg: the config, not frozen. Filled in: `MODEL.SEM_SEG_HEAD.NUM_CLASSES`, `MODEL.ROI_HEADS.NUM_CLASSES`,
            `MODEL.DETECTOR.CLASSES`, `INPUT.CHANNELS`, `INPUT.VALUE_RANGE`; `MODEL.PIXEL_MEAN` and `PIXEL_STD` of
            three values for images of another number of channels.

    Raises:
        InputError: the description is missing or wrong, or does not fit the config.
    """
    if cfg.DATASETS.DESCRIPTION:
        description = register_description(cfg.DATASETS.DESCRIPTION)
        if cfg.MODEL.DETECTOR.MODE != "none" and not description.objects:
            raise InputError(
                f"{description.path}: has no 'objects' to detect; name some, or set MODEL.DETECTOR.MODE none"
            )
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(description.classes)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(description.objects)
        cfg.MODEL.DETECTOR.CLASSES = description.object_ids
        _fill_in_channels(cfg, description)
    used = {f"DATASETS.{key}": cfg.DATASETS[key] for key in ("TRAIN", "UNLABELED", "TEST")}
    used["TEST.PSEUDO_LABELS"] = cfg.TEST.PSEUDO_LABELS
    wrong = [key for key, names in used.items() if any(name not in DatasetCatalog for name in names)]
    for key, names in used.items():
        for name in names:
            check_registered(key, name, also=wrong)
            _complete_metadata(name, cfg)


def _fill_in_channels(cfg: CfgNode, description: Description) -> None:
    layout = description.layout
    cfg.INPUT.CHANNELS, cfg.INPUT.VALUE_RANGE = layout.channels, layout.value_range
    count = len(layout.channels)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = cfg.MODEL[key]
        if len(values) == len(RGB.channels) != count:
            # Other channels take the pretrained weights of red, green and blue in turn, a single one their sum.
            cfg.MODEL[key] = [sum(values) / len(values)] if count == 1 else list(islice(cycle(values), count))
        elif len(values) != count:
            raise InputError(
                f"MODEL.{key}: has {len(values)} values, and the images of {description.path} {count} channels; give "
                "one for each"
            )


def register_description(file: str) -> Description:
    """Register the data set of a YAML file. All processes must call it: one of each machine makes missing data.

    Raises:
        InputError: the description is missing or wrong.
    """
    description = load_description(file)
    if comm.get_local_rank() == 0:
        generate_if_missing(description)
    comm.synchronize()
    register(description)
    return description


def check_registered(key: str, name: str, also: Sequence[str] = ()) -> None:
    """Check that a list is registered.

    Args:
        key: the config key or option that names it, for the message.
        name: such as "camvid_val".
        also: all keys with unknown names, as there are after the config's description was replaced.

    Raises:
        InputError: it is not; the message proposes the nearest names, or all but Detectron2's own.
    """
    if name in DatasetCatalog:
        return
    known = [known for known, make in DatasetCatalog.items() if not _of_detectron2(make)]
    if not known:
        mend = "set DATASETS.DESCRIPTION to the YAML of its data set"
    elif len(also) > 1:
        mend = f"set {', '.join(also)} to some of the lists that there are: {', '.join(known)}"
    else:
        mend = suggest(name, known)
    raise InputError(f"{key}: {name!r} is not a list of a registered data set; {mend}")


def _of_detectron2(make: Callable[[], Any]) -> bool:
    return getattr(make, "__module__", "").startswith("detectron2.")


def _complete_metadata(name: str, cfg: CfgNode) -> None:
    """Names and colors for the classes of a data set that other code registered without them."""
    metadata, count = MetadataCatalog.get(name), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not count:
        return
    classes, colors = class_names_and_colors(metadata.as_dict(), count)
    if len(classes) != count or len(colors) != count:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES: {count}, but {name} has names for {len(classes)} classes and colors for "
            f"{len(colors)}; make them equal"
        )
    objects = cfg.MODEL.DETECTOR.CLASSES
    whole: dict[str, Any] = {"stuff_classes": classes, "stuff_colors": colors}
    if objects:
        whole |= {
            "object_ids": objects,
            "thing_classes": [classes[index] for index in objects],
            "thing_colors": [colors[index] for index in objects],
        }
    metadata.set(**{key: value for key, value in whole.items() if key not in metadata.as_dict()})


def register_part(name: str, images: int) -> str:
    """Register a random sample of a data set's images with masks. The same name always gives the same sample.

    Args:
        name: in the `DatasetCatalog`.
        images: size of the sample; at most all images with masks are taken. A larger sample holds the smaller ones.

    Returns:
        the sample's name, NAME_part_IMAGES; its metadata are those of the whole.

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
