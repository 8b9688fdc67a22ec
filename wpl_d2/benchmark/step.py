"""A whole training step, with and without weights and as UniMatch's authors do it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from detectron2.modeling import Backbone
from detectron2.utils.events import EventStorage
from torch.profiler import ProfilerActivity, profile

from ..data import build_train_loader
from ..engine import build_optimizer
from ..engine.trainer import amp_dtype
from ..frameworks import Framework, UniMatch, build_framework
from ..frameworks.base import Batch, Terms
from ..frameworks.loss_terms import consistency_term, select, split
from ..modeling import UnifiedSegDet
from ..structures import IGNORE, PseudoLabels
from ..weighting import PixelWeigher
from .floor import count_flops, count_operations, now, peak_flops


class Step:
    """A whole training step of a config on one fixed batch, and the seconds that its parts took.

    The parts are `models`, `detector` and `weighting`, see `_time_parts`, and `own`, the rest of what the framework
    does before the backward pass and after the optimizer: pseudo-labels, mixing, losses, teachers.
    """

    def __init__(self, cfg: Any, batch: Any, build: Callable[[Any], Framework] = build_framework) -> None:
        """Build the framework of a config, and its optimizer."""
        self.framework = build(cfg).to(cfg.MODEL.DEVICE)
        self.optimizer = build_optimizer(cfg, *self.framework.students)
        self.amp = amp_dtype(cfg)
        self.batch, self.device = batch, cfg.MODEL.DEVICE
        self.parts: dict[str, float] = {}
        self.times: list[dict[str, float]] = []
        _time_parts(self.framework, self.parts, self._now)

    def __call__(self) -> None:
        """Do a step and measure it."""
        self.parts.clear()
        start = self._now()
        with torch.autocast(self.device, self.amp, enabled=self.amp is not None), EventStorage():
            losses = self.framework(self.batch)
        gradients = self._now()
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        after = self._now()
        self.framework.after_step()
        self.framework.iteration += 1
        end = self._now()
        own = end - start - (after - gradients) - sum(self.parts.values())
        self.times.append({"step": end - start, "own": own, **self.parts})

    def median(self, part: str) -> float:
        """Seconds of a part in the middle one of the measured steps."""
        return statistics.median(times.get(part, 0.0) for times in self.times)

    def count(self, counter: Callable[[Callable[[], Any]], int]) -> int:
        """What `count_flops` or `count_operations` counts in one more step."""
        times = len(self.times)
        with torch.compiler.set_stance("force_eager"):  # compiled operations are not seen
            found = counter(self)
        del self.times[times:]
        return found

    def peak(self) -> int:
        """The most bytes that the tensors of one more step took at a time, beside those that were there before it."""
        times = len(self.times)
        if self.device != "cpu":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self()
            peak = torch.cuda.max_memory_allocated() - before
        else:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
                self()
            events = (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")
            changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
            peak = max(accumulate(changes))
        del self.times[times:]
        return peak

    def _now(self) -> float:
        return now(self.device)


class PublishedUniMatch(UniMatch):
    """Plain UniMatch as its authors' code does the step, to compare with.

    The images to mix with are labeled in a forward of their own, and PyTorch's layers run as they are, on planes.
    """

    @classmethod
    def build(cls, cfg: Any) -> PublishedUniMatch:
        """The framework of a config, without what makes our networks faster."""
        framework = cls(cfg).to(memory_format=torch.contiguous_format)
        for module in framework.modules():
            for name in ("forward", "num_batches_tracked"):
                vars(module).pop(name, None)
        return framework

    def terms(self, batch: Batch) -> Terms:
        """The terms of a plain step."""
        items, count = batch["unlabeled"], len(batch["labeled"])
        images, valid = self.images([*batch["labeled"], *items], "image"), self.stack(items, "valid")
        size = (images.shape[-2], images.shape[-1])
        # The batch in reverse stands for the second views that the authors' loader would give.
        self.student.eval()
        with torch.no_grad():
            partners = self.student.decode(self.student.encode(images[count:].flip(0)), size)
        self.student.train()
        theirs = PseudoLabels.from_logits(partners.logits, valid.flip(0))
        features = self.student.encode(images)
        output = self.student.decode(features, size, perturb=self._append_perturbed)
        labeled, weak, _, perturbed = split(output, *[count, len(items)] * 2)
        ours = PseudoLabels.from_logits(weak.logits.detach(), valid)
        terms, losses = self.supervised_losses(
            batch["labeled"], select(features, slice(count)), labeled, coefficient=0.5
        )
        terms.append(consistency_term("loss_perturbed", perturbed.logits, ours, self.threshold, self.alpha / 4))
        mixed = []
        views = self.make_strong_views(items).unbind(1)
        for view, mask in zip(views, self.random_samples(views), strict=True):
            mixed.append((torch.where(mask[:, None], view.flip(0), view), ours.where(mask, theirs)))
        return terms + self._strong_terms(mixed), losses


_MODEL = ("encode", "decode", "detection_losses")
_WEIGHER = ("weight", "reliable", "stage_labeled", "stage_reliable", "after_step")


def _time_parts(framework: Framework, parts: dict[str, float], now: Callable[[], float]) -> None:
    """Add up in `parts` the seconds spent in the forward passes of models, in detectors and in weighers.

    What one of them calls of another is its own.
    """
    inside: list[str] = []

    def timed(owner: Any, name: str, part: str) -> None:
        call = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if inside:
                return call(*args, **kwargs)
            inside.append(part)
            start = now()
            value = call(*args, **kwargs)
            parts[part] = parts.get(part, 0.0) + now() - start
            inside.pop()
            return value

        setattr(owner, name, wrapped)

    for module in framework.modules():
        if isinstance(module, UnifiedSegDet):
            for name in _MODEL:
                timed(module, name, "models")
            timed(module, "detect", "detector")
            heads = {"sem_seg_head": ("enter", "rebuild", "merge", "classify"), "aux_head": ("forward",)}
            for head, names in (heads | {"method_head": ("forward", "classify")}).items():
                for name in names:
                    if hasattr(owner := getattr(module, head), name):
                        timed(owner, name, "models")
        elif isinstance(module, Backbone):  # also one beside the models, such as SemiVL's guide
            timed(module, "forward", "models")
        elif isinstance(module, PixelWeigher):
            for name in _WEIGHER:
                timed(module, name, "weighting")


def first_batch(cfg: Any) -> Any:
    """A batch of a config's loader, with partners if its framework mixes images with some."""
    stream = build_train_loader(cfg)
    batch = next(stream)
    if cfg.FRAMEWORK.NAME == "AEL":
        # Any images cost what those cost that a framework asks for.
        batch["partners"] = next(stream)["unlabeled"]
    if cfg.FRAMEWORK.NAME == "STPlusPlus" and not cfg.DATASETS.PSEUDO_LABELS:
        # As do any labels.
        for item in batch["unlabeled"]:
            valid = item["valid"]
            item |= {"pseudo_labels": torch.where(valid, 0, IGNORE), "pseudo_weight": valid.float()}
    return batch


def compare_steps(
    cfg: Any,
    batch: Any,
    steps: int,
    build: Callable[[Any], Framework] = build_framework,
    with_published: bool = True,
) -> dict[str, float]:
    """Step time and memory of the plain, the weighted and, for UniMatch, the published step, all taking turns.

    Args:
        cfg: complete, with its data sets registered; its weights are switched off and on.
        batch: of the config's loader.
        steps: measured steps of each kind.
        build: makes a framework of a config.
        with_published: whether UniMatch is compared with its authors' step.

    Returns:
        `KIND_step_s`, `KIND_peak_mib` and `KIND_floor_share`, the share of the step that its FLOPs would take at the
        speed of `peak_flops` (`peak_gflops`), and `KIND_operations`, see `count_operations`, of each KIND;
        `weighting_s` and `detector_forward_s`, and ratios of these: `weighting_overhead`, `step_ratio`,
        `weighted_to_published`.
    """
    plain_cfg = cfg.clone()
    plain_cfg.WEIGHTING.ENABLED = plain_cfg.RPPI.ENABLED = False
    cfg.WEIGHTING.ENABLED = True
    plain, weighted = Step(plain_cfg, batch, build), Step(cfg, batch, build)
    kinds = {"plain": plain, "weighted": weighted}
    if with_published and isinstance(plain.framework, UniMatch):
        bare_cfg = plain_cfg.clone()
        bare_cfg.MODEL.DETECTOR.MODE = "none"
        kinds["published"] = Step(bare_cfg, batch, PublishedUniMatch.build)
    # The machine's speed at the beginning, in the middle and at the end: others may use it too.
    peaks = []
    for number in range(steps + 2):
        for step in kinds.values():
            step()
            if number < 2:
                step.times.clear()  # warm-up
        if number in (1, steps // 2 + 1, steps + 1):
            peaks.append(peak_flops(plain.device, plain.amp or torch.float32))
    own = weighted.median("weighting")
    peak = statistics.median(peaks)
    floors = {name: step.count(count_flops) / peak / step.median("step") for name, step in kinds.items()}
    published = {}
    if "published" in kinds:
        published = {"weighted_to_published": weighted.median("step") / kinds["published"].median("step")}
    return {
        **{f"{name}_step_s": step.median("step") for name, step in kinds.items()},
        "weighting_s": own,
        "detector_forward_s": weighted.median("detector"),
        "weighting_overhead": own / plain.median("step"),
        "step_ratio": weighted.median("step") / plain.median("step"),
        **published,
        "peak_gflops": peak / 1e9,
        **{f"{name}_floor_share": share for name, share in floors.items()},
        **{f"{name}_operations": step.count(count_operations) for name, step in kinds.items()},
        **{f"{name}_peak_mib": step.peak() / 2**20 for name, step in kinds.items()},
    }
