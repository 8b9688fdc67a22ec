#!/usr/bin/env python
"""What a training step costs with and without the weighting, measured side by side in one process.

`tools/benchmark.py --config-file configs/camvid/mean_teacher_wpl.yaml`; the last line is one JSON object.
With UniMatch it also has the plain step as UniMatch's authors' code does it, without a detector: `published_step_s`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch.profiler import ProfilerActivity, profile

from wpl_d2.config import load_cfg
from wpl_d2.data import build_train_loader, setup_datasets
from wpl_d2.engine import build_optimizer
from wpl_d2.engine.trainer import amp_dtype
from wpl_d2.frameworks import Framework, UniMatch, build_framework
from wpl_d2.frameworks.base import Batch, Terms
from wpl_d2.frameworks.loss_terms import consistency_term, select, split
from wpl_d2.structures import PseudoLabels
from wpl_d2.utils.command_line import parse_args, positive_int
from wpl_d2.utils.errors import InputError, clear_errors
from wpl_d2.weighting import rank_overlap


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    cfg = load_cfg(args.config_file, args.opts)
    cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    cfg.FRAMEWORK.BURN_IN = 0
    cfg.MODEL.WEIGHTS = ""
    setup_datasets(cfg)
    if not cfg.DATASETS.UNLABELED:
        raise InputError(
            "DATASETS.UNLABELED: empty, so that there is nothing to weight; name a list of unlabeled images"
        )
    stream = build_train_loader(cfg)
    batch = next(stream)
    if build_framework(cfg).partner_indices():
        # Any images cost what those cost that a framework asks for.
        batch["partners"] = next(stream)["unlabeled"]
    result = {"config": args.config_file, "device": cfg.MODEL.DEVICE, "threads": args.threads, "steps": args.steps}
    result |= compare_steps(cfg, batch, args.steps)
    result |= compare_overlap(cfg, batch, args.steps)
    print(json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in result.items()}))


class Step:
    """A whole training step of a config on one fixed batch, and the seconds that its parts took."""

    def __init__(self, cfg: Any, batch: Any, build: Callable[[Any], Framework] = build_framework) -> None:
        self.framework = build(cfg).to(cfg.MODEL.DEVICE)
        self.optimizer = build_optimizer(cfg, self.framework.student)
        self.amp = amp_dtype(cfg)
        self.batch, self.device = batch, cfg.MODEL.DEVICE
        self.parts: dict[str, float] = {}
        self.times: list[dict[str, float]] = []
        _time_parts(self.framework, self.parts, self._now)

    def __call__(self) -> None:
        self.parts.clear()
        start = self._now()
        with torch.autocast(self.device, self.amp, enabled=self.amp is not None), EventStorage():
            losses = self.framework(self.batch)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.framework.after_step()
        self.framework.iteration += 1
        self.times.append({"step": self._now() - start, **self.parts})

    def median(self, part: str) -> float:
        """Seconds of a part in the middle one of the measured steps."""
        return statistics.median(times.get(part, 0.0) for times in self.times)

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
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


class PublishedUniMatch(UniMatch):
    """Plain UniMatch as its authors' code does the step, to compare with.

    The images to mix with are labeled in a forward of their own.
    """

    def terms(self, batch: Batch) -> Terms:
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
        views = self.stack(items, "strong").unbind(1)
        for view, mask in zip(views, self.random_samples(views), strict=True):
            mixed.append((torch.where(mask[:, None], view.flip(0), view), ours.where(mask, theirs)))
        return terms + self._strong_terms(mixed), losses


def _time_parts(framework: Framework, parts: dict[str, float], now: Callable[[], float]) -> None:
    """Add up in `parts` the seconds spent in the weigher and in the teacher's detector."""

    def timed(owner: Any, name: str, part: str) -> None:
        call = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = now()
            value = call(*args, **kwargs)
            parts[part] = parts.get(part, 0.0) + now() - start
            return value

        setattr(owner, name, wrapped)

    if framework.weigher is not None:
        for name in ("weight", "reliable", "stage_labeled", "stage_reliable", "after_step"):
            timed(framework.weigher, name, "weighting")
        if "boxes" in framework.weigher.needs:
            timed(framework.pseudo_labeler, "detect", "detector")


def compare_steps(cfg: Any, batch: Any, steps: int) -> dict[str, float]:
    """Step time and memory of the plain, the weighted and, for UniMatch, the published step, all taking turns."""
    plain_cfg = cfg.clone()
    plain_cfg.WEIGHTING.ENABLED = plain_cfg.RPPI.ENABLED = False
    cfg.WEIGHTING.ENABLED = True
    plain, weighted = Step(plain_cfg, batch), Step(cfg, batch)
    kinds = {"plain": plain, "weighted": weighted}
    if isinstance(plain.framework, UniMatch):
        bare_cfg = plain_cfg.clone()
        bare_cfg.MODEL.DETECTOR.MODE = "none"
        kinds["published"] = Step(bare_cfg, batch, PublishedUniMatch)
    for number in range(steps + 2):
        for step in kinds.values():
            step()
            if number < 2:
                step.times.clear()  # warm-up
    own = weighted.median("weighting")
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
        **{f"{name}_peak_mib": step.peak() / 2**20 for name, step in kinds.items()},
    }


def compare_overlap(cfg: Any, batch: Any, steps: int) -> dict[str, float]:
    """`rank_overlap` beside a bare `topk` of the same embedding, and beside the per-class loop at full resolution."""
    images = len(batch["unlabeled"])
    height, width = cfg.INPUT.CROP_SIZE
    head = cfg.MODEL.SEM_SEG_HEAD
    generator = torch.Generator().manual_seed(0)
    cells = (-(-height // 4), -(-width // 4))
    embedding = torch.randn(images, head.CONVS_DIM, *cells, generator=generator).relu().to(cfg.MODEL.DEVICE)
    label = torch.randint(head.NUM_CLASSES, (images, height, width), generator=generator).to(cfg.MODEL.DEVICE)
    prototypes = torch.rand(head.NUM_CLASSES, head.CONVS_DIM, generator=generator).to(cfg.MODEL.DEVICE)
    k = cfg.WEIGHTING.K
    calls = {
        "overlap": lambda: rank_overlap(embedding, label, prototypes, k),
        "topk": lambda: embedding.topk(k, dim=1),
        "naive": lambda: naive_overlap(embedding, label, prototypes, k),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(5, steps)):
        for name, call in calls.items():
            if name == "naive" and len(times[name]) >= 3:
                continue
            start = time.perf_counter()
            call()
            if cfg.MODEL.DEVICE != "cpu":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {f"{name}_s": value for name, value in seconds.items()} | {
        "overlap_to_topk": seconds["overlap"] / seconds["topk"],
        "naive_to_overlap": seconds["naive"] / seconds["overlap"],
    }


def naive_overlap(embedding: torch.Tensor, label: torch.Tensor, prototypes: torch.Tensor, k: int) -> torch.Tensor:
    """The straightforward way: upsample the embedding, sort all channels, loop over classes and their channels."""
    full = torch.nn.functional.interpolate(embedding, label.shape[-2:], mode="bilinear", align_corners=True)
    ranked = full.argsort(dim=1, descending=True)[:, :k]
    overlap = torch.zeros(label.shape, device=label.device)
    for number, prototype in enumerate(prototypes):
        for channel in prototype.topk(k).indices:
            overlap += ((ranked == channel).any(dim=1) & (label == number)).float()
    return overlap / k


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, help="path to config file")
    parser.add_argument("--steps", type=positive_int, default=10, help="measured steps of each kind")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")
    return parse_args(parser)


if __name__ == "__main__":
    with clear_errors():
        main(_parse())
