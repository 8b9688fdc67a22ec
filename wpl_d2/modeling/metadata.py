"""Names and colours of the classes for Detectron2's own tools, out of a trained model's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .checkpoint_file import check_about, is_checkpoint, read_config
from .weight_files import read_file


def name_classes(cfg: Any) -> None:
    """Let the metadata of DATASETS.TEST name the classes in a process that has not registered the data set.

    Detectron2's `DefaultPredictor` builds its model by a training's config and looks there; a checkpoint says of
    itself what its classes are, so that neither the data set nor its description has to be at hand. Nothing is
    done where MODEL.WEIGHTS is no checkpoint of a training with this data set.

    Args:
        cfg: a complete config.

    Raises:
        InputError: the checkpoint says something of itself that cannot be.
    """
    path = Path(cfg.MODEL.WEIGHTS)
    names = [name for name in cfg.DATASETS.TEST if name not in DatasetCatalog]
    if not names or path.suffix != ".pth" or not path.is_file():
        return
    try:
        content = read_file(str(path))
    except InputError:
        return  # who loads the weights says what is wrong with them
    if not is_checkpoint(content):
        return
    check_about(content, str(path))
    known = read_config(content["config"], str(path)).get("DATASETS", {}).get("TEST", ())
    classes, colors, objects = content["classes"], [tuple(color) for color in content["colors"]], content["objects"]
    for name in names:
        if name in known:
            MetadataCatalog.get(name).set(
                stuff_classes=classes,
                stuff_colors=colors,
                thing_classes=[classes[index] for index in objects],
                thing_colors=[colors[index] for index in objects],
            )
