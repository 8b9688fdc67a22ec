"""Loading trained models and first weights, without executing anything in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from ..modeling import MaskCLIPBackbone, ModelPair, UnifiedSegDet, VLGHead, build_model, load_backbone_weights
from ..modeling.model_metadata import METADATA_KEYS, check_metadata, is_checkpoint, read_config
from ..modeling.text_embeddings import load_texts
from ..modeling.weight_files import extract_state_dict, read_weight_file
from ..modeling.weights import (
    adapt_input,
    from_unimatch_v2,
    load_backbone_state,
    load_model_state,
    select_model,
    select_weights,
    weights_of,
)
from ..utils.errors import InputError
from .classes import ClassNames, check_model_classes, get_run_classes, match_classes
from .metadata import restore_cfg


def load_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU and validate its metadata.

    Args:
        path: a file written by `FrameworkCheckpointer` or a safetensors export.

    Raises:
        InputError: the file does not exist, cannot be read, would execute code, is not a checkpoint of this project, or
            is of a model that this version would compute differently.
    """
    content = read_weight_file(path)
    if not is_checkpoint(content):
        raise InputError(f"{path}: is not a checkpoint of this project; give a model_*.pth that a training wrote")
    check_metadata(content, path)
    _check_resize(content["config"], path)
    return {**content, "model": extract_state_dict(content["model"], path)}


def _check_resize(config: str, path: str) -> None:
    """Reject models of a version whose decoder ignored ALIGN_CORNERS when it resized ASPP's output."""
    head = read_config(config, path).get("MODEL", CfgNode()).get("SEM_SEG_HEAD", CfgNode())
    # ASPP_POOL_NORM came with the version that regards ALIGN_CORNERS there.
    if head.get("ALIGN_CORNERS") and "ASPP_POOL_NORM" not in head:
        raise InputError(
            f"{path}: its model resized ASPP's output without MODEL.SEM_SEG_HEAD.ALIGN_CORNERS, which is True; this "
            "version's would compute other logits of its weights: train it anew"
        )


def load_initial_weights(model: nn.Module, cfg: Any) -> None:
    """Load MODEL.WEIGHTS into a model at the start of a training, in place.

    Args:
        model: the student.
        cfg: MODEL.WEIGHTS is a checkpoint of this project or of UniMatch V2's code, which fills the whole model, or
            anything that `load_backbone_weights` takes; for `VLGHead`, with CLIP's text encoder. With
            MODEL.MATCH_CLASSES a checkpoint may have other classes than the run.

    Raises:
        InputError: the file cannot be read or does not fit.
    """
    path = cfg.MODEL.WEIGHTS
    if not path:
        return
    content = read_weight_file(path)
    weights = extract_state_dict(content, path)
    if is_checkpoint(content):
        check_metadata(content, path)
        trained, own = ClassNames.from_checkpoint(content), get_run_classes(cfg)
        if not cfg.MODEL.MATCH_CLASSES:
            check_model_classes(trained, own, path)
        elif trained.difference(own):
            weights = match_classes(select_weights(weights), model, trained, own)
        load_model_state(model, adapt_input(select_weights(weights), model, path), path)
        return
    backbone = model.get_submodule("backbone")
    if whole := from_unimatch_v2(backbone, weights):
        load_model_state(model, adapt_input(whole, model, path), path)
    else:
        load_backbone_state(backbone, weights, path)
        _load_beside(model, cfg, weights)


def _load_beside(model: nn.Module, cfg: Any, weights: Mapping[str, Tensor]) -> None:
    """Load what begins with weights of its own beside a backbone's: CLIP's texts, and the ResNet beside `MaskCLIP`."""
    if isinstance(model.backbone, MaskCLIPBackbone) and model.backbone.conv is not None:
        load_backbone_weights(model.backbone.conv, cfg.MODEL.MASKCLIP.CONV_WEIGHTS)
    if isinstance(head := getattr(model, "sem_seg_head", None), VLGHead):
        load_texts(head, weights, get_run_classes(cfg).names, cfg.MODEL.VLG, cfg.MODEL.WEIGHTS)


def load_model(path: str, which: str = "", device: str = "cpu") -> tuple[UnifiedSegDet, dict[str, Any]]:
    """Rebuild a trained model from nothing but a checkpoint, without the head that its method alone needs.

    Args:
        path: the checkpoint, or a safetensors export.
        which: "teacher" or "student"; by default the teacher if there is one.
        device: the model's device.

    Returns:
        the model (of PSMT a `ModelPair`) in evaluation mode, and its metadata (see `wpl_d2.modeling.model_metadata`)
        with the config as a CfgNode.

    Raises:
        InputError: the file is not a checkpoint of this project, or has no such model.
    """
    checkpoint = load_checkpoint(path)
    weights = weights_of(which, checkpoint["model"]) if which else select_model(checkpoint["model"])
    if not weights:
        raise InputError(f"{path}: holds no {which} beside another model; name none to take what is there")
    metadata = {key: checkpoint[key] for key in METADATA_KEYS}
    metadata["config"] = restore_cfg(metadata["config"], path)
    metadata["config"].MODEL.DEVICE = device
    metadata["config"].MODEL.METHOD_HEAD.NAME = ""
    model = build_model(metadata["config"])
    load_model_state(model, weights, path)
    if second := weights_of("second", weights):
        model = ModelPair(model, build_model(metadata["config"]))
        load_model_state(model.second, second, path)
    return model.eval(), metadata
