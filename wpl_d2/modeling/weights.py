"""Loading weights into a model from a checkpoint, and into a backbone from ImageNet weights in any common format."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from detectron2.modeling.backbone import FPN
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ..utils.errors import InputError
from .backbone.timm import TimmBackbone
from .backbone.vit import TimmViT, ViTBackbone
from .weight_files import PACKAGE, read_weights

if TYPE_CHECKING:
    from torch.nn.modules.module import _IncompatibleKeys

logger = logging.getLogger(__name__)

T = TypeVar("T")

MODEL_NAMES = ("teacher", "student")
"""The models in a framework's checkpoint; the first that it holds is evaluated and exported."""

_PREDICTOR = "sem_seg_head.predictor.weight"
_FUSE = re.compile(r"sem_seg_head\.decoder\.\w+\.project_conv\.project\.weight")
_ARCHITECTURE = "MODEL.META_ARCHITECTURE"
# Optional parts of a model: the pattern of their weights' names, a description, and the key that chooses them.
_PARTS = (
    (r"sem_seg_head\.", "a segmentation head", _ARCHITECTURE),
    (r"backbone\.body\.", "a backbone of timm", "MODEL.BACKBONE.NAME"),
    (r"backbone\.stem\.conv2\.", "a stem of three convolutions", "MODEL.RESNETS.STEM_TYPE"),
    (r"backbone\.res4\.6\.", "101 layers", "MODEL.RESNETS.DEPTH"),
    (r"detector\.", "a detector", "MODEL.DETECTOR.MODE"),
    (r"aux_head\.", "an auxiliary head", "MODEL.AUX_HEAD.ENABLED"),
    (r"method_head\.", "a head of a method", "MODEL.METHOD_HEAD.NAME"),
    (r"sem_seg_head\..+\.depthwise\.", "separable convolutions", "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV"),
    (r"sem_seg_head\..+\.project\.norm\.", "norms in its head", "MODEL.SEM_SEG_HEAD.NORM"),
    (r"sem_seg_head\..+\.convs\.4\.1\.norm\.", "a norm of ASPP's pooling", "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM"),
    (r"sem_seg_head\..+\.representation\.", "a representation", "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM"),
    (r"sem_seg_head\..+\.project_conv\.bias", "biases of project convolutions", "MODEL.SEM_SEG_HEAD.BIASED_CONVS"),
    (
        r"sem_seg_head\..+\.fuse_conv(\.fuse)?\.(0|depthwise)\.bias",
        "biases of fuse convolutions",
        "MODEL.SEM_SEG_HEAD.BIASED_CONVS",
    ),
)
# Parts of names that mark a tensor of an ImageNet classifier.
_CLASSIFIERS = {"fc", "linear", "classifier", "head"}
# torchvision's names of the stem, of one convolution or of the three of the published methods' ResNets.
_STEM = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
_DEEP_STEM = {
    "conv1.0": "stem.conv1",
    "conv1.1": "stem.conv1.norm",
    "conv1.3": "stem.conv2",
    "conv1.4": "stem.conv2.norm",
    "conv1.6": "stem.conv3",
    "bn1": "stem.conv3.norm",
}
# UniMatch V2's names of parts of its head, and those of `DPTHead`.
_DPT_PARTS = {
    "out_conv": "project",
    "resConfUnit1": "lateral",
    "resConfUnit2": "sum",
    ".conv1.": ".1.",
    ".conv2.": ".3.",
    "output_conv.0": "fuse",
    "output_conv.2": "predictor",
}


def load_model_state(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load all weights of `model` from the state of such a model or of a framework (see `select_weights`).

    Those of a method's own head are left out where the model has none: what it learned is of use without.

    Args:
        model: changed in place.
        state_dict: the state as read.
        source: its file, for messages.

    Raises:
        InputError: keys are missing, unexpected or of another shape.
    """
    weights, head = select_weights(state_dict), "method_head."
    if not any(key.startswith(head) for key in model.state_dict()):
        weights = {key: value for key, value in weights.items() if not key.startswith(head)}
    check_compatible(model, weights, source, exactly=True)
    model.load_state_dict(weights)


class FrameworkCheckpointMixin(nn.Module):
    """Lets a model load its weights, all or none, from a framework's checkpoint."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Load a state dict completely, or fail.

        Detectron2's checkpointer, which calls this, would drop what does not fit and go on with a warning.

        Args:
            state_dict: of such a model, or of a framework, whose `teacher.*`, else `student.*`, is used.
            strict: False admits unexpected keys; missing keys are an error either way.
            assign: as in `nn.Module`.

        Raises:
            InputError: keys are missing or of another shape.
        """
        weights = select_weights(state_dict)
        check_compatible(self, weights)
        return super().load_state_dict(weights, strict, assign)


def select_weights(state_dict: Mapping[str, T]) -> dict[str, T]:
    """One model's weights of those that `select_model` takes: of a `ModelPair` the first one's."""
    weights = select_model(state_dict)
    return weights_of("first", weights) or weights


def select_model(state_dict: Mapping[str, T]) -> dict[str, T]:
    """What is evaluated of a framework's weights: `teacher.*`, else `student.*`, else the state dict as it is."""
    return next(filter(None, (weights_of(name, state_dict) for name in MODEL_NAMES)), dict(state_dict))


def weights_of(name: str, state_dict: Mapping[str, T]) -> dict[str, T]:
    """The weights of a part, such as one of `MODEL_NAMES`, without its prefix; empty if there are none."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def check_compatible(
    model: nn.Module, weights: Mapping[str, Tensor], source: str = "checkpoint", exactly: bool = False
) -> None:
    """Check that `weights` has all keys of `model` in their shapes.

    Args:
        model: the model to load into.
        weights: the state dict.
        source: its file, for the message.
        exactly: whether unexpected keys are an error.

    Raises:
        InputError: keys are missing, misshapen or, with `exactly`, unexpected. If the number of classes or whole parts
            differ, the message says so, with the config keys that choose them.
    """
    wanted = model.state_dict()
    if _PREDICTOR in weights and _PREDICTOR in wanted:
        given, own = len(weights[_PREDICTOR]), len(wanted[_PREDICTOR])
        if given != own:
            raise InputError(
                f"{source}: the checkpoint has {given} classes, the config {own}; "
                "use the data set it was trained on (DATASETS.DESCRIPTION, MODEL.SEM_SEG_HEAD.NUM_CLASSES)"
            )
    first = first_convolution(model)
    if first in weights and weights[first].shape[1:2] != wanted[first].shape[1:2]:
        raise InputError(
            f"{source}: is of images of {weights[first].shape[1]} channels, and the data set's have "
            f"{wanted[first].shape[1]}; use the data set it was trained on (DATASETS.DESCRIPTION), or begin with it "
            "(MODEL.WEIGHTS)"
        )
    problems = _problems(wanted, weights)
    if exactly:
        problems += [f"{key} is not the model's" for key in sorted(weights.keys() - wanted.keys())]
    if not problems:
        return
    if differences := _differences(wanted, weights):
        raise InputError(
            f"{source}: is of another model than the config's: {', '.join(differences)}; set these keys as in its "
            "training, or train anew"
        )
    raise InputError(
        f"{source}: does not fit the model: {_join(problems)}; use the config it was trained with "
        "(keys of another shape also count as missing where Detectron2's checkpointer loads)"
    )


def load_backbone_weights(backbone: nn.Module, path: str) -> None:
    """Load a backbone's weights, usually of ImageNet training; a classifier in the file is ignored.

    Args:
        backbone: changed in place; of an FPN its `bottom_up`.
        path: a value of MODEL.WEIGHTS:
            "": keep the random weights;
            a file: a Detectron2 `.pkl`, torchvision's or timm's `.pth`, `.safetensors`;
            `torchvision://resnet50`: torchvision's download;
            `timm://resnet18`: timm's download;
            `open_clip://ViT-B-16/openai`: open_clip's download, of both encoders;
            `detectron2://...`, `https://...`: anything that Detectron2's `PathManager` can open;
            `package://NAME`: the one `.pth` in an installed Python package, its tensors matched by order.

    Raises:
        InputError: the file or package does not exist, holds more than tensors, or does not fit.
    """
    if path:
        load_backbone_state(backbone, read_weights(path), path)


def load_backbone_state(backbone: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load a backbone's weights from a state dict; see `load_backbone_weights`.

    Args:
        backbone: changed in place; of an FPN its `bottom_up`.
        state_dict: may include a classifier, which is ignored.
        source: its file, as in MODEL.WEIGHTS.

    Raises:
        InputError: it does not fit.
    """
    backbone = backbone.bottom_up if isinstance(backbone, FPN) else backbone
    module = backbone.body if isinstance(backbone, TimmBackbone | TimmViT) else backbone
    assert isinstance(module, nn.Module)
    wanted, given = _without_counters(module.state_dict()), _without_counters(state_dict)
    if source.startswith(PACKAGE):
        given = dict(zip(wanted, given.values(), strict=False))
    elif isinstance(backbone, TimmBackbone | TimmViT):
        given = backbone.convert(given)
    elif any(key.startswith("layer1.") for key in given):
        given = {_detectron2_name(key, deep="conv1.0.weight" in given): value for key, value in given.items()}
    given = adapt_input(given, module, source)
    modules = {key.split(".")[0] for key in wanted}
    unexpected = [key for key in given.keys() - wanted.keys() if not _is_classifier(key, modules)]
    problems = _problems(wanted, given) + [f"{key} is not the backbone's" for key in sorted(unexpected)]
    if problems:
        raise InputError(
            f"{source}: is of another model than {_describe(backbone)}: {_join(problems, most=2)}; give MODEL.WEIGHTS "
            f"the file that belongs to it{_example(backbone)}, or nothing to begin at random ('')"
        )
    module.load_state_dict({key: given[key] for key in wanted}, strict=False)


def first_convolution(model: nn.Module) -> str:
    """The name of the weights in a model or backbone that images are multiplied with first; "" without convolutions."""
    names = (name for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    # Detectron2's FPN registers its own convolutions before those of the network below.
    return next((f"{name}.weight" for name in names if "fpn_" not in name), "")


def adapt_input(given: Mapping[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Adapt pretrained weights to images of another number of channels, as timm does, and log it.

    The first convolution's weights are taken in turn for more channels, and scaled so that sums stay the same; a single
    channel gets their sum.

    Args:
        given: the pretrained weights.
        model: the model or backbone that they are for.
        source: the file of the weights, for the log.
    """
    first = first_convolution(model)
    old, new = given.get(first), model.get_parameter(first)
    if old is None or old.ndim != new.ndim or old.shape[1] == new.shape[1]:
        return dict(given)
    channels, trained = new.shape[1], old.shape[1]
    how = "summed up" if channels == 1 else "taken in turn for the channels, and scaled"
    logger.warning(
        "%s: is of images of %d channels, and these have %d: the weights of its first convolution, %s, are %s (as timm "
        "does)",
        *(source, trained, channels, first, how),
    )
    return {**given, first: adapt_input_conv(channels, old, trained)}


def from_unimatch_v2(backbone: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a whole model of UniMatch V2's code under this project's names; empty if they are of another one.

    Args:
        backbone: a `ViTBackbone` for the names of its weights; any other has none of these.
        state_dict: as read.
    """
    weights = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if not isinstance(backbone, ViTBackbone) or "head.scratch.output_conv.0.weight" not in weights:
        return {}
    tokens = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    body = backbone.convert({key.removeprefix("backbone."): value for key, value in tokens.items()})
    head = {_dpt_name(key): value for key, value in weights.items() if key.startswith("head.")}
    head = {f"sem_seg_head.{key}": value for key, value in head.items() if not key.startswith("fusions.3.lateral")}
    return {f"backbone.body.{key}": value for key, value in body.items()} | head


def _dpt_name(key: str) -> str:
    """`DPTHead`'s name of a tensor in UniMatch V2's head."""
    key = key.removeprefix("head.").removeprefix("scratch.").replace("resize_layers.", "resizes.")
    key = re.sub(r"^layer(\d)_rn", lambda found: f"reduces.{int(found[1]) - 1}", key)
    key = re.sub(r"^refinenet(\d)", lambda found: f"fusions.{int(found[1]) - 1}", key)
    for theirs, ours in _DPT_PARTS.items():
        key = key.replace(theirs, ours)
    return key


def _without_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # BN's counters do not affect results, and many files lack them.
    return {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{key} is missing" for key in wanted if key not in given]
    misshapen = [
        f"{key} has shape {tuple(given[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    ]
    return missing + misshapen


def _differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Describe the parts in which a checkpoint (`given`) differs from a model."""
    found = []
    for pattern, words, key in _PARTS:
        ours, theirs = (any(re.match(pattern, name) for name in names) for names in (wanted, given))
        if ours != theirs:
            found.append(f"it {'has' if theirs else 'lacks'} {words} ({key})")
            if key == _ARCHITECTURE:
                return found  # the parts of different architectures cannot be compared
    for name in filter(_FUSE.fullmatch, wanted.keys() & given.keys()):
        size = given[name].shape[-1]
        if size != wanted[name].shape[-1]:
            found.append(f"it fuses ASPP's branches by {size}x{size} (MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL)")
    return found


def _is_classifier(key: str, modules: set[str]) -> bool:
    """Whether a key that the backbone lacks belongs to the rest of an image classifier."""
    parts = key.split(".")
    return parts[0] not in modules or not _CLASSIFIERS.isdisjoint(parts)


def _detectron2_name(key: str, deep: bool) -> str:
    """Detectron2's name of a tensor in torchvision's ResNet."""
    stage = re.fullmatch(r"layer(\d)\.(.+)", key)
    if stage:
        rest = re.sub(r"bn(\d)", r"conv\1.norm", stage[2])
        rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        return f"res{int(stage[1]) + 1}.{rest}"
    module, _, tensor = key.rpartition(".")
    stem = _DEEP_STEM if deep else _STEM
    return f"{stem[module]}.{tensor}" if module in stem else key


def _describe(backbone: nn.Module) -> str:
    """A backbone in terms of config keys."""
    if isinstance(backbone, TimmBackbone | TimmViT):
        return f"MODEL.TIMM.NAME {backbone.name}"
    return f"the {type(backbone).__name__} of MODEL.BACKBONE and MODEL.RESNETS"


def _example(backbone: nn.Module) -> str:
    return f", such as timm://{backbone.name}" if isinstance(backbone, TimmBackbone | TimmViT) else ""


def _join(items: list[str], most: int = 8) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
