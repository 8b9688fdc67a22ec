"""All that a GPU has to show, in minutes: one factor at a time around UniMatch with ResNet-101 at crop 513."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..config import load_cfg
from ..config.config import override
from ..config.validation import check_device
from ..data import build_train_loader, setup_datasets
from ..frameworks import Framework, build_framework
from ..utils.errors import check_name
from .device import check_no_sync, compare_resumed, compare_with_cpu
from .step import compare_steps, first_batch
from .synthetic import write_data_set

Figures = dict[str, Any]

_BASE: list[Any] = [
    "MODEL.DEVICE",
    "cuda",
    "INPUT.CROP_SIZE",
    (513, 513),
    "SOLVER.AMP.ENABLED",
    True,
    "MODEL.WEIGHTS",
    "",
]
_BASE += ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 4, "FRAMEWORK.BURN_IN", 0]
_BASE += ["FRAMEWORK.BURN_IN_EPOCHS", 0, "WEIGHTING.ENABLED", True]
_EXACT: list[Any] = ["MODEL.RESNETS.DEPTH", 50, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.UNLABELED_IMS_PER_BATCH", 2]
_EXACT += ["SOLVER.AMP.ENABLED", False, "FRAMEWORK.THRESHOLD", 0.0, "WEIGHTING.LABELED_CONF", 0.0]
_DATA_SETS = {
    "benchmark_photos": ((500, 375), ".jpg", 24, 21),
    "benchmark_streets": ((2048, 1024), ".png", 8, 19),
}
"""Size, suffix, number of images and of classes: as those of VOC and of Cityscapes."""
_LOADED_SECONDS = 8.0
_CELL_SECONDS = 150.0
_TOLERANCES = {"bank": 0.0, "weight": 0.01, "loss": 1e-3}
"""Largest `NAME_difference` of `compare_with_cpu` for which a device passes."""
_ROUNDINGS = 5.0
"""How many times the CPU's `rounding_difference` the `step_difference` may be."""

_COLUMNS = {
    "plain_step_s": ("plain, ms", 1000.0),
    "weighted_step_s": ("weighted, ms", 1000.0),
    "published_step_s": ("published, ms", 1000.0),
    "weighting_overhead": ("weighting, %", 100.0),
    "step_ratio": ("weighted / plain", 1.0),
    "plain_floor_share": ("floor_share", 1.0),
    "plain_peak_mib": ("peak, MiB", 1.0),
}
"""Heading and factor of a figure in the table of steps."""


class _OutOfTime(BaseException):
    """No `Exception`: nobody on the way shall take it for an error of his own."""


class Suite:
    """The parts of the suite in the order of their worth.

    Each leaves a row in FOLDER/rows.jsonl as soon as it is measured, an error in place of its figures where it fails,
    and FOLDER/table.md is written anew.
    """

    def __init__(self, folder: Path, opts: Collection[Any] = ()) -> None:
        """Plan.

        Args:
            folder: for rows and table; made where it is missing.
            opts: KEY VALUE pairs that change the base of all parts.
        """
        self.folder, self.opts = folder, list(opts)
        self.rows: list[Figures] = []
        self.scratch = Path()

    def parts(self) -> dict[str, Callable[[], Figures]]:
        """What is measured, by name, the most important first."""
        step, size = self._measure_step, self._crop
        large = ["INPUT.CROP_SIZE", size(25 / 16)]
        steps = {
            "mean_teacher": partial(step, "mean_teacher"),
            "float32": partial(step, opts=["SOLVER.AMP.ENABLED", False]),
            "crop 801": partial(step, opts=large),
            "compiled": partial(step, opts=["MODEL.COMPILE", True]),
            "contiguous": partial(step, build=_build_contiguous),
            "R50": partial(step, opts=["MODEL.RESNETS.DEPTH", 50]),
            "crop 321": partial(step, opts=["INPUT.CROP_SIZE", size(5 / 8)]),
            "batch 8 + 8": partial(step, opts=["SOLVER.IMS_PER_BATCH", 8, "SOLVER.UNLABELED_IMS_PER_BATCH", 8]),
            "cudnn benchmark": partial(step, opts=["CUDNN_BENCHMARK", True]),
            "augseg": partial(step, "augseg"),
            "ael": partial(step, "ael"),
            "u2pl": partial(step, "u2pl"),
            "detector": partial(step, "unimatch_wpl"),
        }
        hosts = ("unimatch", "mean_teacher", "augseg", "ael", "u2pl")
        return {
            "base": partial(step, published=True),
            **{f"no sync, {host}": partial(self._check_no_sync, host) for host in hosts},
            "loader, photos": partial(self._measure_loader, "benchmark_photos", "base"),
            "as on the CPU": self._compare_with_cpu,
            "resume": self._compare_resumed,
            **steps,
            "loader, street scenes": partial(self._measure_loader, "benchmark_streets", "crop 801", large),
        }

    def run(self, seconds: float, only: Collection[str] = ()) -> None:
        """Measure until the time is used up.

        Args:
            seconds: after these no part is begun, and the one that runs is given up.
            only: names of parts; by default all.

        Raises:
            InputError: the base is no valid config, there is no such part, or no GPU.
        """
        check_device("MODEL.DEVICE", self._read().MODEL.DEVICE)
        for name in only:
            check_name("--only", name, self.parts())
        end = time.monotonic() + seconds
        faulthandler.dump_traceback_later(seconds + 30, exit=True)  # where no signal is handled any more
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rows.jsonl").write_text("")
        with tempfile.TemporaryDirectory() as scratch:
            self.scratch = Path(scratch)
            for name, (size, suffix, images, classes) in _DATA_SETS.items():
                write_data_set(self.scratch / name, size, suffix, images, classes)
            self._measure(end, only)
        faulthandler.cancel_dump_traceback_later()

    def _measure(self, end: float, only: Collection[str]) -> None:
        for name, measure in self.parts().items():
            left = end - time.monotonic()
            if (only and name not in only) or left < 1:
                continue
            began = time.monotonic()
            row = {"name": name, **_figures(measure, min(left, _CELL_SECONDS))}
            self._add(row | {"took_s": round(time.monotonic() - began, 1)})

    def _read(self, preset: str = "unimatch", opts: Collection[Any] = (), data: str = "benchmark_photos") -> Any:
        cfg = load_cfg(f"voc/{preset}")
        lists = [f"{data}_{name}" for name in ("labeled", "unlabeled")]
        data_set: list[Any] = ["DATASETS.DESCRIPTION", str(self.scratch / data / "data.yaml"), "DATASETS.TEST", ()]
        data_set += ["DATASETS.TRAIN", lists[:1], "DATASETS.UNLABELED", lists[1:]]
        override(cfg, [*data_set, *_BASE, *self.opts, *opts])
        return cfg

    def _cfg(self, *args: Any, **kwargs: Any) -> Any:
        """`_read` ready for use."""
        cfg = self._read(*args, **kwargs)
        setup_datasets(cfg)
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        return cfg

    def _crop(self, factor: float) -> tuple[int, int]:
        """The base's crop times a factor, of n * 16 + 1 pixels a side."""
        height, width = (int((side - 1) / 16 * factor) * 16 + 1 for side in self._read().INPUT.CROP_SIZE)
        return height, width

    def _measure_step(
        self,
        preset: str = "unimatch",
        opts: Collection[Any] = (),
        build: Callable[[Any], Framework] = build_framework,
        published: bool = False,
    ) -> Figures:
        cfg = self._cfg(preset, opts)
        steps = 3 if cfg.MODEL.DEVICE == "cpu" else 10
        return compare_steps(cfg, first_batch(cfg), steps, build, with_published=published)

    def _measure_loader(self, data: str, step: str, opts: Collection[Any] = ()) -> Figures:
        """Images a second of a loader with a worker for each core, and those that the weighted step of a row eats."""
        workers = max(1, (os.cpu_count() or 2) // 2)  # for each of both streams
        cfg = self._cfg(opts=["DATALOADER.NUM_WORKERS", workers, *opts], data=data)
        stream = build_train_loader(cfg)
        images = cfg.SOLVER.IMS_PER_BATCH + cfg.SOLVER.UNLABELED_IMS_PER_BATCH
        for _ in range(4 * workers):  # what was loaded while nobody looked
            next(stream)
        count, began = 0, time.monotonic()
        while time.monotonic() - began < _LOADED_SECONDS:
            next(stream)
            count += images
        rate = count / (time.monotonic() - began)
        found = {"loaded_images_per_s": rate, "workers": 2 * workers}
        for row in self.rows:
            if row["name"] == step and "weighted_step_s" in row:
                found["eaten_images_per_s"] = images / row["weighted_step_s"]
        return found

    def _check_no_sync(self, preset: str) -> Figures:
        cfg = self._cfg(preset)
        check_no_sync(cfg, first_batch(cfg))
        return {"passed": True}

    def _compare_with_cpu(self) -> Figures:
        cfg = self._cfg("mean_teacher", [*_EXACT, "INPUT.CROP_SIZE", self._crop(1 / 4)])
        found = compare_with_cpu(cfg, first_batch(cfg))
        most = _TOLERANCES | {"step": _ROUNDINGS * found["rounding_difference"]}
        return found | {"passed": all(found[f"{name}_difference"] <= value for name, value in most.items())}

    def _compare_resumed(self) -> Figures:
        cfg = self._cfg("mean_teacher", [*_EXACT, "INPUT.CROP_SIZE", self._crop(1 / 4)])
        found = compare_resumed(cfg, self.scratch / "resume")
        return found | {"passed": found["resume_difference"] <= found["repeat_difference"]}

    def _add(self, row: Figures) -> None:
        row = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in row.items()}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        (self.folder / "table.md").write_text(render(self.rows))


def render(rows: Collection[Mapping[str, Any]]) -> str:
    """Rows as Markdown: where they were measured, a table of steps, and a list of all other figures."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    steps = [row for row in rows if "plain_step_s" in row]
    lines = [f"On {device}, with PyTorch {torch.__version__}.", ""]
    lines.append("| step | " + " | ".join(heading for heading, _ in _COLUMNS.values()) + " |")
    lines.append("|---" * (len(_COLUMNS) + 1) + "|")
    for row in steps:
        cells = (f"{row[name] * factor:.4g}" if name in row else "" for name, (_, factor) in _COLUMNS.items())
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    lines.append("")
    for row in rows:
        figures = ", ".join(f"{key} {value}" for key, value in row.items() if key != "name")
        if row not in steps:
            lines.append(f"- {row['name']}: {figures}")
    return "\n".join(lines) + "\n"


def _figures(measure: Callable[[], Figures], seconds: float) -> Figures:
    """What a part measures, or its error; leaves nothing on the device."""
    try:
        with _time_limit(seconds), warnings.catch_warnings(action="ignore"):
            return measure()
    except _OutOfTime:
        return {"error": f"not done after {seconds:.0f} s"}
    except Exception as error:  # one part shall not end the others
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _build_contiguous(cfg: Any) -> Framework:
    framework = build_framework(cfg)
    framework.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return framework
