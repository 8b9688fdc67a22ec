"""What a device has to do as the CPU does: the same values, exact resume, and steps for which no host waits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..checkpoint import load_checkpoint
from ..engine import Trainer, build_optimizer
from ..engine.solver import resolve_epochs
from ..engine.trainer import amp_dtype, seed_step
from ..frameworks import Framework, build_framework
from ..frameworks.base import Batch
from ..structures import IGNORE


def check_no_sync(cfg: Any, batch: Batch) -> None:
    """Take a step in which PyTorch allows no wait for the GPU; on a CPU there is none.

    Args:
        cfg: complete, with its data sets registered, and without a detector: Detectron2's wait.
        batch: of the config's loader.

    Raises:
        RuntimeError: of PyTorch, from where the host would have waited.
    """
    framework = build_framework(cfg)
    optimizer = build_optimizer(cfg, *framework.students)
    for _ in range(2):  # libraries choose their algorithms, and memory is allocated
        _step(framework, optimizer, batch, amp_dtype(cfg))
    if cfg.MODEL.DEVICE == "cpu":
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(framework, optimizer, batch, amp_dtype(cfg))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compare_with_cpu(cfg: Any, batch: Batch) -> dict[str, float]:
    """The differences between a step on the device and the same one on the CPU, in float32 without TF32.

    Args:
        cfg: complete, with its data sets registered, weighting enabled, and a framework that draws nothing on
            the device (MeanTeacher); every pseudo-label has to train.
        batch: of the config's loader.

    Returns:
        `bank_difference` of what the same embeddings leave in the memory bank, the largest one; of the pseudo-labels'
        `weight_difference`, the mean one; `loss_difference`, the largest relative one; `step_difference`, that of all
        changes of the parameters, relative to these; and `rounding_difference`, the same between two steps on the CPU
        whose parameters differ by a rounding: deep networks enlarge it.
    """
    own = cfg.clone()
    own.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    state = build_framework(own).state_dict()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        ours, theirs = _outcome(cfg, batch, state), _outcome(own, batch, state)
    rounded = _outcome(own, batch, _rounded(state))
    return {
        "bank_difference": float((ours.bank - theirs.bank).abs().max()),
        "weight_difference": float((ours.weight - theirs.weight).abs().mean()),
        "loss_difference": float(((ours.losses - theirs.losses).abs() / theirs.losses).max()),
        "step_difference": _relative_difference(ours.change, theirs.change),
        "rounding_difference": _relative_difference(rounded.change, theirs.change),
    }


def _relative_difference(values: Tensor, reference: Tensor) -> float:
    return float((values - reference).norm() / reference.norm())


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state with parameters that differ by what float32 rounds."""
    generator = torch.Generator().manual_seed(1)

    def change(values: Tensor) -> Tensor:
        noise = torch.finfo(values.dtype).eps * torch.randn(values.shape, generator=generator)
        return values * (1 + noise)

    return {name: change(values) if values.is_floating_point() else values for name, values in state.items()}


class _Outcome(NamedTuple):
    """What a step leaves, on the CPU."""

    bank: Tensor
    weight: Tensor
    losses: Tensor
    change: Tensor


def _outcome(cfg: Any, batch: Batch, state: dict[str, Tensor]) -> _Outcome:
    """Take a step from a state, with a memory bank of random embeddings, the same on every device."""
    framework = build_framework(cfg)
    framework.load_state_dict(state)
    assert framework.weigher is not None
    bank, generator = framework.weigher.labeled_bank, torch.Generator().manual_seed(0)
    classes, size, dim = bank.ring.shape
    rows, labels = torch.rand(classes * size, dim, generator=generator), torch.arange(classes * size) % (classes + 1)
    bank.push(rows.to(framework.device), labels.masked_fill(labels == classes, IGNORE).to(framework.device))
    filled, before = bank.ring.cpu().clone(), _parameters(framework.student)
    losses = _step(framework, build_optimizer(cfg, *framework.students), batch, None)
    pseudo = framework.last_step.pseudo_labels
    assert pseudo is not None
    return _Outcome(filled, pseudo.weight.cpu(), losses.cpu(), _parameters(framework.student) - before)


def compare_resumed(cfg: Any, folder: Path) -> dict[str, float]:
    """Train four steps, the same again, and the last two of them after a resume.

    Args:
        cfg: complete, with its data sets registered.
        folder: for the runs.

    Returns:
        `repeat_difference` and `resume_difference`, the largest of a tensor in the checkpoint; a resume is exact if
        it differs by no more than the repeated training does.
    """
    final = {}
    for name in ("first", "again", "resumed"):
        own = cfg.clone()
        resolve_epochs(own)
        own.OUTPUT_DIR = str(folder / name)
        own.merge_from_list(["SEED", 1, "TEST.EVAL_PERIOD", 0, "VIS_PERIOD", 0])
        own.merge_from_list(["SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 2])
        Path(own.OUTPUT_DIR).mkdir(parents=True)
        if name == "resumed":
            shutil.copy(folder / "first" / "model_0000001.pth", own.OUTPUT_DIR)
            (folder / "resumed" / "last_checkpoint").write_text("model_0000001.pth")
        with _deterministic():
            torch.manual_seed(0)
            trainer = Trainer(own)
            trainer.resume_or_load(resume=name == "resumed")
            trainer.train()
        final[name] = load_checkpoint(str(folder / name / "model_final.pth"))["model"]
    return {
        "repeat_difference": _largest_difference(final["first"], final["again"]),
        "resume_difference": _largest_difference(final["first"], final["resumed"]),
    }


def _step(framework: Framework, optimizer: torch.optim.Optimizer, batch: Batch, dtype: torch.dtype | None) -> Tensor:
    seed_step(0, framework.iteration, 0)
    with torch.autocast(framework.device.type, dtype, enabled=dtype is not None), EventStorage():
        losses = torch.stack(list(framework(batch).values()))
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()
    framework.after_step()
    framework.iteration += 1
    return losses.detach()


def _parameters(student: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in student.parameters()])


def _largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours if ours[name].numel())


@contextmanager
def _deterministic() -> Iterator[None]:
    """Algorithms that add up in one order, as far as a device has some."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
