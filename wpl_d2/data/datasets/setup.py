"""From the config's data set to registered lists and a config that knows the classes."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from ...errors import InputError, check_name
from .folder import load_description, register
from .generators import generate_if_missing


def setup_datasets(cfg: CfgNode) -> None:
    """Register the data set of `DATASETS.DESCRIPTION` and fill its classes into `cfg`, in place.

    Without a description only the names in the config are checked, so that data sets registered by other code
    work. A data set with a generator is made first, by one process of each machine.

    Args:
        cfg: the config, not frozen. Filled in: `MODEL.SEM_SEG_HEAD.NUM_CLASSES`, `MODEL.ROI_HEADS.NUM_CLASSES` and
            `MODEL.DETECTOR.CLASSES`.

    Raises:
        InputError: the description is missing.
        InputError: `file-or-key: what is wrong; how to mend it`.
    """
    if cfg.DATASETS.DESCRIPTION:
        description = load_description(cfg.DATASETS.DESCRIPTION)
        if comm.get_local_rank() == 0:
            generate_if_missing(description)
        comm.synchronize()
        register(description)
        if cfg.MODEL.DETECTOR.MODE != "none" and not description.objects:
            raise InputError(
                f"{description.path}: has no 'objects' to detect; name some, or set MODEL.DETECTOR.MODE none"
            )
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(description.classes)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(description.objects)
        cfg.MODEL.DETECTOR.CLASSES = description.object_ids
    used = {f"DATASETS.{key}": cfg.DATASETS[key] for key in ("TRAIN", "UNLABELED", "TEST")}
    for key, names in {**used, "TEST.PSEUDO_LABELS": cfg.TEST.PSEUDO_LABELS}.items():
        for name in names:
            check_name(key, name, DatasetCatalog)
