"""The commands of a run, from the detector's training on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .recipes import REPOSITORY, Recipe

Command = tuple[str, ...]


class Step(NamedTuple):
    """A command, a tool of this repository and its arguments, and the file that it leaves."""

    command: Command
    leaves: Path

    @property
    def begun(self) -> bool:
        """Whether it is a training that has left a checkpoint to go on from."""
        return self.leaves.name == "model_final.pth" and (self.leaves.parent / "last_checkpoint").is_file()


def resumed(training: Step) -> Command:
    """The command that goes on with a training."""
    return (*training.command[:3], "--resume", *training.command[3:])


def steps_of(recipe: Recipe, root: Path, seed: int, processes: int = 1) -> list[Step]:
    """The commands from nothing to a run's result, which is the last one's.

    Args:
        recipe: of the run.
        root: of all runs.
        seed: of the training; detectors are trained once, with their preset's.
        processes: of each command, on GPUs where there are any.
    """
    gpus = ("--num-gpus", str(processes)) if processes > 1 else ()
    detector = _detector(recipe, root, gpus) if recipe.weights == "_wpl" or recipe.judged else []
    if recipe.judged:
        return [*steps_of(recipe.training, root, seed, processes), *detector, _judge(recipe, root, seed, gpus)]
    output = recipe.folder(root, seed)
    command = (*_call("train_net.py", recipe.config), *gpus, *recipe.overrides(root))
    return [*detector, Step((*command, "SEED", str(seed), "OUTPUT_DIR", str(output)), output / "model_final.pth")]


def next_step(steps: Sequence[Step]) -> Step:
    """What to run next: the last step, or an earlier one whose file it needs and which is not there.

    Args:
        steps: of `steps_of`.
    """
    *before, todo = steps
    for step in reversed(before):
        if str(step.leaves) in todo.command and not step.leaves.is_file():
            todo = step
    return todo


def _detector(recipe: Recipe, root: Path, gpus: Command) -> list[Step]:
    """Training of the split's detector, and keeping its boxes of the unlabeled images."""
    boxes = recipe.boxes(root)
    weights = boxes.with_name("model_final.pth")
    config = REPOSITORY / "configs" / "detector" / f"{recipe.data}.yaml"
    own = ("DATASETS.SPLIT", recipe.split, "OUTPUT_DIR", str(boxes.parent))
    keep = ("--weights", str(weights), "--dataset", f"{recipe.lists}_unlabeled", "--output", str(boxes))
    return [
        Step((*_call("train_net.py", config), *gpus, *own), weights),
        Step((*_call("cache_boxes.py"), *gpus, *keep), boxes),
    ]


def _judge(recipe: Recipe, root: Path, seed: int, gpus: Command) -> Step:
    """Judging the pseudo-labels of a training's last checkpoint."""
    output = recipe.folder(root, seed)
    result = output / "judged.json"
    flags = ("--dataset", f"{recipe.lists}_unlabeled", "--output", str(result))
    weights = ("MODEL.WEIGHTS", str(recipe.training.folder(root, seed) / "model_final.pth"))
    command = (*_call("judge_pseudo_labels.py", recipe.config), *gpus, *flags, *weights, *recipe.overrides(root))
    return Step((*command, "OUTPUT_DIR", str(output)), result)


def _call(tool: str, config: Path | None = None) -> Command:
    """The beginning of a command as it is called from the current folder."""
    call = (os.path.relpath(REPOSITORY / "tools" / tool),)
    return call if config is None else (*call, "--config-file", os.path.relpath(config))
