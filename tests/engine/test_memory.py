from types import SimpleNamespace

import pytest
import torch
from helpers import SMALL

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.cli.train_net import train_or_evaluate
from wpl_d2.engine import Trainer, check_run, launch, launch_within_memory
from wpl_d2.engine.memory import MemoryLimitError, finer_accumulation, memory_limit
from wpl_d2.frameworks import Framework, MeanTeacher
from wpl_d2.utils.errors import InputError

CPU_ERROR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1099511627776 bytes. Error code 12 (Cannot allocate memory)"
)


def arguments(tree, output, processes=1, **given):
    opts = [*SMALL, "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, *given.pop("opts", [])]
    cfg = tree.cfg(*opts, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.UNLABELED_IMS_PER_BATCH", 4, "OUTPUT_DIR", str(output))
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.DETECTOR.CLASSES = 0, ()
    path = tree.root / "run.yaml"
    path.write_text(cfg.dump())
    run = {"num_gpus": processes, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return SimpleNamespace(config_file=str(path), opts=[], resume=False, eval_only=False, **run, **given)


def too_large_from_step_3_on(most):
    """A forward for which more than so many labeled images at a time are too many, from the third step on."""
    forward = Framework.forward

    def limited(self, batch):
        if self.iteration >= 2 and len(batch["labeled"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch)

    return limited


def test_the_error_says_what_to_set(tree):
    batch = ["SOLVER.IMS_PER_BATCH", 16, "SOLVER.UNLABELED_IMS_PER_BATCH", 8, "SOLVER.GRAD_ACCUMULATION", 2]
    cfg = tree.cfg(*batch, "INPUT.CROP_SIZE", (513, 321))
    message = (
        "SOLVER.GRAD_ACCUMULATION: 2, but 4 labeled and 2 unlabeled images of 321x513 at a time do not fit into the "
        "memory of cuda; set SOLVER.GRAD_ACCUMULATION to 4, or SOLVER.IMS_PER_BATCH to 8 and "
        'SOLVER.UNLABELED_IMS_PER_BATCH to 4, or INPUT.CROP_SIZE to "(353, 225)"'
    )
    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_ERROR)):
        with pytest.raises(MemoryLimitError) as found, memory_limit(cfg, processes=2):
            raise error
        assert str(found.value) == message
    with pytest.raises(RuntimeError, match="shapes"), memory_limit(cfg, processes=2):
        raise RuntimeError("shapes do not fit")


def test_what_the_cpu_allocator_says_is_known(tree):
    with pytest.raises(MemoryLimitError), memory_limit(tree.cfg(), processes=1):
        torch.empty(2**50)


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "now", "finer"),
    [(8, 8, 1, 2), (8, 4, 2, 4), (6, 6, 2, 6), (3, 3, 1, 3), (8, 2, 2, None), (1, 1, 1, None), (9, 6, 1, 3)],
)
def test_the_next_smaller_micro_batches(tree, labeled, unlabeled, now, finer):
    batch = ["SOLVER.IMS_PER_BATCH", 2 * labeled, "SOLVER.UNLABELED_IMS_PER_BATCH", 2 * unlabeled]
    assert finer_accumulation(tree.cfg(*batch, "SOLVER.GRAD_ACCUMULATION", now), processes=2) == finer


def test_a_training_goes_on_once_with_smaller_micro_batches(tree, tmp_path, monkeypatch, capfd):
    args = arguments(tree, tmp_path / "out")
    starts = []
    load = Trainer.resume_or_load
    monkeypatch.setattr(Trainer, "resume_or_load", lambda self, resume: (load(self, resume), starts.append(self)))
    monkeypatch.setattr(MeanTeacher, "forward", too_large_from_step_3_on(2))
    launch_within_memory(train_or_evaluate, args, check_run)
    assert [(trainer.start_iter, trainer.cfg.SOLVER.GRAD_ACCUMULATION) for trainer in starts] == [(0, 1), (2, 2)]
    assert load_checkpoint(str(tmp_path / "out/model_final.pth"))["iteration"] == 3
    printed = capfd.readouterr().err
    assert "4 labeled and 4 unlabeled images of 64x48 at a time" in printed and "Traceback" not in printed
    assert "trying once more, with SOLVER.GRAD_ACCUMULATION 2" in printed


def test_a_second_time_is_the_end_and_other_errors_are_at_once(tree, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(MeanTeacher, "forward", too_large_from_step_3_on(1))
    with pytest.raises(SystemExit) as end:
        launch_within_memory(train_or_evaluate, arguments(tree, tmp_path / "out"), check_run)
    assert end.value.code == 2
    assert capfd.readouterr().err.count("trying once more") == 1

    def refuse(self, batch):
        raise InputError("data: wrong; mend it")

    monkeypatch.setattr(MeanTeacher, "forward", refuse)
    with pytest.raises(SystemExit):
        launch_within_memory(train_or_evaluate, arguments(tree, tmp_path / "other"), check_run)
    assert "trying" not in capfd.readouterr().err


def train_on_rank_1_of_little_memory(args):
    """In each process."""
    if torch.distributed.get_rank() == 1:
        MeanTeacher.forward = too_large_from_step_3_on(1)
    train_or_evaluate(args)


@pytest.mark.slow
def test_one_rank_of_little_memory_lets_all_begin_again(tree, tmp_path, capfd):
    args = arguments(tree, tmp_path / "out", processes=2)
    launch_within_memory(train_on_rank_1_of_little_memory, args, check_run)
    assert load_checkpoint(str(tmp_path / "out/model_final.pth"))["iteration"] == 3
    assert "trying once more, with SOLVER.GRAD_ACCUMULATION 2" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        launch(train_on_rank_1_of_little_memory, args, check_run)
