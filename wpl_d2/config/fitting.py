"""Settings that fit a data set and a device: each a function of what was measured, with its reason.

The rules were made on CamVid and VOC animals; docs/guide/fitted-settings.md has them as a table, with what they rest
on. What no rule sets is as in the preset beneath, configs/_base_/own_data.yaml.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .validation import check_device

GiB = 2**30
_CPU_CROP, _GPU_CROP = 192, 512
_WHOLE = 128  # images up to this many pixels are not cropped
_SMALLEST = 64  # shorter side of an image at the working scale
_STRIDE = 32
_MIN_OBJECT = 16  # pixels: a cell of the coarsest features
_DETECTABLE = 48  # pixels: three cells
_MIN_BOXES = 10  # for each class of objects
_CHOOSE_BACKBONE = {"MODEL.BACKBONE.NAME", "MODEL.TIMM.NAME", "MODEL.RESNETS.DEPTH"}
_GPU_FACTOR = 10  # steps on a GPU, for one on a CPU
_PER_PAIR = 2.5 * GiB  # of a labeled and an unlabeled crop of _GPU_CROP; estimated
_BURN_IN = 300  # steps
_FEW_LABELED, _ENOUGH_LABELED = 3, 7  # images for each class
_TELLING_COLORS = 0.5  # of `color_kappa`
_EVALUATION_SHARE = 0.2
_PASSES = 8  # forwards' worth of a labeled and an unlabeled crop: students with backward, teacher
_ONE_WAY = re.compile(r".*\b(left|right|arrow|digit|letter|text)s?\b.*")
_SIGN = re.compile(r"\d+|[a-z]|zero|one|two|three|four|five|six|seven|eight|nine")


@dataclass(frozen=True)
class DatasetFacts:
    """What was measured of a data set, labels of the labeled images alone.

    Attributes:
        labeled: number of labeled training images.
        unlabeled: of unlabeled ones.
        val: of images to evaluate on.
        size: median height and width in pixels.
        classes: names.
        boxes: number of component boxes for each class of objects.
        box_side: of these boxes the shorter sides' median, in pixels; 0 without boxes.
        box_sizes: quantiles 5, 25, 50, 75 and 95 % of the square roots of their areas; empty without boxes.
        channels: the mean and the standard deviation of each channel in 0..255; empty for red, green and blue.
        color_kappa: how well color alone tells the classes apart, 1 without fail, 0 as chance does.
    """

    labeled: int
    unlabeled: int
    val: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    boxes: tuple[int, ...] = ()
    box_side: float = 0.0
    box_sizes: tuple[float, ...] = ()
    channels: tuple[tuple[float, ...], ...] = ()
    color_kappa: float = 0.0

    @property
    def short(self) -> int:
        """The median image's shorter side."""
        return min(self.size)


class Device(NamedTuple):
    """What is trained on: the CPU's cores, and the GPU's memory in bytes, 0 without one."""

    cores: int
    gpu_memory: int = 0

    @property
    def gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.gpu_memory > 0

    @classmethod
    def present(cls, name: str = "cuda") -> Device:
        """This machine; `name` as of MODEL.DEVICE."""
        cores = len(os.sched_getaffinity(0))
        if name.startswith("cuda") and torch.cuda.is_available():
            check_device("MODEL.DEVICE", name)
            return cls(cores, torch.cuda.get_device_properties(torch.device(name)).total_memory)
        return cls(cores)


class Setting(NamedTuple):
    """A config key, its value, and why."""

    key: str
    value: Any
    reason: str


def fit_settings(facts: DatasetFacts, device: Device, given: Mapping[str, Any] | None = None) -> list[Setting]:
    """The settings for a data set on a device.

    Args:
        facts: of the data set.
        device: what trains.
        given: keys that are set already. They are left out; what depends on steps, batch, detector or backbone follows.
    """
    given = given or {}
    scale, view = _views(facts, device)
    steps = given.get("SOLVER.MAX_ITER") or _steps(facts, device)
    batch = _batch(facts, device)
    images = given.get("SOLVER.IMS_PER_BATCH") or batch[0].value
    settings = [
        *view,
        *_strong_views(facts),
        *batch,
        *_schedule(facts, device, steps),
        *_optimizer(steps, images),
        *(_pseudo_labels(facts, device, steps) if facts.unlabeled else _supervised()),
        *_detector(facts, scale, given.get("MODEL.DETECTOR.MODE")),
        *([] if given.keys() & _CHOOSE_BACKBONE else _backbone(device)),
        *_evaluation(facts, steps, images, scale, view[0].value[0]),
        Setting("DATALOADER.NUM_WORKERS", _clip(device.cores - 1, 1, 8 if device.gpu else 4), f"{device.cores} cores"),
    ]
    # In place of those that came with the backbone.
    settings = list({setting.key: setting for setting in (*settings, *_statistics(facts))}.values())
    return [setting for setting in settings if setting.key not in given]


def _views(facts: DatasetFacts, device: Device) -> tuple[float, list[Setting]]:
    """The scale at which images are seen, and the settings of crop, scales and flips."""
    limit = _GPU_CROP if device.gpu else _CPU_CROP
    scale = _scale(facts, limit)
    seen = facts.short * scale
    crop = _up_to_stride(seen if seen <= _WHOLE else min(limit, seen / 2))
    part = "the whole" if seen <= _WHOLE else "half the shorter side"
    least = min(scale, max(scale / 2, 0.8 * crop / facts.short))
    at = f"at {scale:g} of their size" if scale != 1 else "at their own size"
    if scale < 1:
        at += f", so that a crop of {limit} shows enough"
        at += f" and objects of {facts.box_side:.0f} pixels are still seen" if facts.box_side else ""
    settings = [
        Setting("INPUT.CROP_SIZE", (crop, crop), f"{part} of images of {facts.size[1]}x{facts.size[0]} {at}"),
        Setting("INPUT.SCALE_RANGE", (round(least, 3), round(1.5 * scale, 3)), f"half to three halves of {scale:g}"),
        Setting("TEST.INFERENCE.SCALES", (scale,), "images are judged at the scale at which they are trained on"),
    ]
    words = {name: name.lower().replace("_", " ") for name in facts.classes}
    one_way = [name for name, said in words.items() if _ONE_WAY.fullmatch(said) or _SIGN.fullmatch(said)]
    if one_way:
        settings.append(Setting("INPUT.RANDOM_FLIP", "none", f"{one_way[0]!r} is something else in a mirror"))
    return scale, settings


def _strong_views(facts: DatasetFacts) -> list[Setting]:
    if facts.color_kappa < _TELLING_COLORS:
        return []
    why = f"color alone tells most classes apart (kappa {facts.color_kappa:.2f}): in another one they are others"
    return [
        Setting("INPUT.STRONG.JITTER", (0.5, 0.5, 0.5, 0.03), why),
        Setting("INPUT.STRONG.GRAY_PROB", 0.0, why),
    ]


def _scale(facts: DatasetFacts, limit: int) -> float:
    """Factor of the images' size at which a crop shows half of the shorter side, and objects can still be seen."""
    scale = min(1.0, 2 * limit / facts.short)
    if facts.box_side:
        scale = max(scale, min(1.0, _MIN_OBJECT / facts.box_side))
    return float(f"{max(scale, _SMALLEST / facts.short):.2g}")


def _batch(facts: DatasetFacts, device: Device) -> list[Setting]:
    size, why = 4, "enough for norms that use no batch, at half the cost of 8"
    if device.gpu:
        size = _clip(_power_of_two(0.6 * device.gpu_memory / _PER_PAIR), 2, 16)
        why = (
            f"{device.gpu_memory / GiB:.0f} GiB of GPU memory, {_PER_PAIR / GiB:g} for a labeled and an unlabeled crop"
        )
    labeled, unlabeled = (min(size, _power_of_two(count)) for count in (facts.labeled, facts.unlabeled))
    as_many = "as many as labeled ones" if unlabeled else "there are none"
    return [
        Setting("SOLVER.IMS_PER_BATCH", labeled, why if labeled == size else f"no more than {facts.labeled} images"),
        Setting("SOLVER.UNLABELED_IMS_PER_BATCH", unlabeled, as_many),
    ]


def _steps(facts: DatasetFacts, device: Device) -> int:
    return (_GPU_FACTOR if device.gpu else 1) * _clip(round(160 * math.sqrt(facts.labeled) / 100) * 100, 600, 4000)


def _schedule(facts: DatasetFacts, device: Device, steps: int) -> list[Setting]:
    why = f"grows with the square root of {facts.labeled} labeled images{', tenfold on a GPU' if device.gpu else ''}"
    return [
        Setting("SOLVER.MAX_ITER", steps, why),
        Setting("SOLVER.CHECKPOINT_PERIOD", math.ceil(steps / 6), "a stop loses at most a sixth"),
    ]


def _optimizer(steps: int, batch: int) -> list[Setting]:
    rate = _clip(0.15 / steps, 5e-5, 3e-4) * math.sqrt(batch / 4)
    why = "AdamW's rate falls as 0.15 / steps, between 0.00005 and 0.0003, and grows with the root of the batch"
    return [Setting("SOLVER.BASE_LR", float(f"{rate:.2g}"), why)]


def _supervised() -> list[Setting]:
    why = "there are no unlabeled images"
    return [Setting("FRAMEWORK.NAME", "Supervised", why), Setting("WEIGHTING.ENABLED", False, why)]


def _pseudo_labels(facts: DatasetFacts, device: Device, steps: int) -> list[Setting]:
    each = facts.labeled / len(facts.classes)
    alpha, trust = _clip((each - _FEW_LABELED) / (_ENOUGH_LABELED - _FEW_LABELED), 0.1, 1.0), ""
    if facts.color_kappa >= _TELLING_COLORS:
        alpha, trust = 1.0, ", and few are enough for classes that color tells apart"
    elif alpha < 1:
        trust = f", under {_ENOUGH_LABELED}: the teacher is not to be trusted in full"
    burn_in = min(steps // 2, _BURN_IN * (_GPU_FACTOR if device.gpu else 1))
    decay = _clip(1 - 8 / (steps - burn_in), 0.98, 0.999)
    weights = "pseudo-labels count by the mean confidence of their object, so that no threshold shuts hard classes out"
    return [
        Setting("FRAMEWORK.NAME", "MeanTeacher", f"{facts.unlabeled} unlabeled images"),
        Setting(
            "FRAMEWORK.ALPHA",
            round(alpha, 2),
            f"{each:.1f} labeled images for each class{trust}",
        ),
        Setting("FRAMEWORK.THRESHOLD", 0.0, weights),
        Setting("WEIGHTING.ENABLED", True, weights),
        Setting("WEIGHTING.KIND", ("object",), weights),
        Setting("FRAMEWORK.BURN_IN", burn_in, "a teacher that starts young passes on what it has not learned yet"),
        Setting("FRAMEWORK.EMA_DECAY", round(decay, 4), "averages over an eighth of the steps with pseudo-labels"),
    ]


def _detector(facts: DatasetFacts, scale: float, given: str | None) -> list[Setting]:
    """Whether there is a detector, unless that is `given`, and the anchors of one."""
    side, each = scale * facts.box_side, sum(facts.boxes) / max(1, len(facts.boxes))
    mode = "none"
    if not facts.boxes:
        why = "no class is called an object"
    elif side < _DETECTABLE:
        why = f"objects have {side:.0f} pixels in the median, under {_DETECTABLE}, three cells of the features"
    elif each < _MIN_BOXES:
        why = f"there are {each:.0f} boxes for a class of objects to learn from, under {_MIN_BOXES}"
    else:
        mode, why = "shared", f"{sum(facts.boxes)} boxes to learn from, {side:.0f} pixels in the median"
    settings = [Setting("MODEL.DETECTOR.MODE", mode, why)]
    if facts.box_sizes and (given or mode) != "none":
        anchors = sorted({2 ** round(math.log2(max(8, size * scale))) for size in facts.box_sizes})
        why = "from the small boxes to the large ones, by factors of 2"
        settings.append(Setting("MODEL.ANCHOR_GENERATOR.SIZES", [anchors], why))
    return settings


def _backbone(device: Device) -> list[Setting]:
    if not device.gpu:
        why = "a CPU trains it, and its ImageNet weights come with the installation"
        return [Setting("MODEL.TIMM.NAME", "tf_efficientnet_lite0", why)]
    why = "a GPU trains a ResNet-50; its ImageNet weights are downloaded once"
    keys = {
        "MODEL.BACKBONE.NAME": "build_unified_resnet_backbone",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.STEM_TYPE": "basic",
        "MODEL.WEIGHTS": "torchvision://resnet50",
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    }
    return [Setting(key, value, why) for key, value in keys.items()]


def _statistics(facts: DatasetFacts) -> list[Setting]:
    keys = ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
    why = "measured on the labeled images, since the pretraining had other channels"
    rounded = ([float(f"{value:.5g}") for value in values] for values in facts.channels)
    return [Setting(key, values, why) for key, values in zip(keys, rounded, strict=False)]


def _evaluation(facts: DatasetFacts, steps: int, batch: int, scale: float, crop: int) -> list[Setting]:
    """Evaluations as often as they take no more than a share of the training's work."""
    if not facts.val:
        return [Setting("TEST.EVAL_PERIOD", 0, "there is no list val")]
    training = steps * batch * crop**2 * _PASSES
    evaluation = facts.val * facts.size[0] * facts.size[1] * scale**2
    count = _clip(int(_EVALUATION_SHARE * training / evaluation), 1, 10)
    why = f"{count} evaluations of {facts.val} images take at most a fifth of the work"
    return [Setting("TEST.EVAL_PERIOD", math.ceil(steps / count), why)]


def _power_of_two(bound: float) -> int:
    """The highest power of 2 up to a bound, as processes divide it; 0 below 1."""
    return 2 ** int(math.log2(bound)) if bound >= 1 else 0


def _up_to_stride(length: float) -> int:
    return max(1, math.ceil(length / _STRIDE - 0.1)) * _STRIDE  # a tenth of a cell too much is no reason for one more


def _clip(value: Any, low: Any, high: Any) -> Any:
    return min(max(value, low), high)
