import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage, get_event_storage

from wpl_d2 import get_cfg
from wpl_d2.engine.writers import PeriodicWriter
from wpl_d2.utils.files import UnwritableError


def train(folder, steps, before_step):
    """A training that does nothing but write, after each step."""
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    writer = PeriodicWriter(cfg, "sem_seg/mIoU", period=1)
    trainer = writer.trainer = SimpleNamespace(iter=0, max_iter=steps)
    with EventStorage() as storage:
        try:
            writer.before_train()
            for trainer.iter in range(steps):
                before_step(trainer.iter)
                storage.put_scalars(time=0.1, **{f"loss_{number}": 1.0 for number in range(30)})
                writer.after_step()
                storage.step()
            trainer.iter += 1
        finally:
            writer.after_train()


def test_a_disk_that_gets_full_while_figures_are_written(small_disk, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fill(step):
        if step == 2:
            with suppress(OSError), (small_disk / "fill").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    with pytest.raises(UnwritableError, match=r"cannot be written \(No space left on device\); make room there"):
        train(small_disk, 40, fill)
    assert told == [] and threading.excepthook == told.append
    lines = (small_disk / "metrics.json").read_text().splitlines(keepends=True)
    assert lines and all(line.endswith("}\n") for line in lines)


def test_the_disk_is_not_what_ended_a_run_that_ended_before(small_disk, caplog):
    def diverge(step):
        if step == 1:
            (small_disk / "fill").write_bytes(bytes(40 * 1024))
            with pytest.raises(OSError, match="No space left"):
                (small_disk / "more").write_bytes(bytes(64 * 1024))
            # More than the rest of the last page of metrics.json.
            get_event_storage().put_scalars(**{f"figure_{number}": 1.0 for number in range(300)})
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        train(small_disk, 3, diverge)
    assert "cannot be written (No space left on device)" in caplog.text


def test_errors_of_other_threads_are_told_as_before(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail(step):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    train(tmp_path, 1, fail)
    assert [args.exc_type for args in told] == [ZeroDivisionError]
