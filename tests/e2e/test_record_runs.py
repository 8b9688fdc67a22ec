"""Trainings become rows of a table of runs."""

import csv
import json
import math

import pytest

from wpl_d2.cli import main

COMMAND = "tools/train_net.py --config-file a.yaml SEED 1 INPUT.CROP_SIZE '(9, 9)' OUTPUT_DIR out/ours_s1"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "ours_s1"
    folder.mkdir()
    rows = [
        {"iteration": 4, "sem_seg/mIoU": 30.0, "loss": 1.0},
        {"iteration": 9, "loss": 0.5},
        {"iteration": 10, "sem_seg/mIoU": 40.1234, "sem_seg/IoU-road": 80.04, "bbox/AP50": 7.0, "sem_seg/mACC": 9.0},
        {"iteration": 10, "dev/sem_seg/mIoU": 41.0, "dev/sem_seg/IoU-road": math.nan, "student/sem_seg/mIoU": 1.0},
    ]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "config.yaml").write_text("DATASETS: {TEST: [val, dev]}\nSOLVER: {MAX_ITER: 10}\n")
    (folder / "log.txt").write_text(f"[11/28 13:50:29] wpl_d2.engine.setup INFO: {COMMAND}\n  device: cpu\n")
    return folder


def record(run):
    main(["record", str(run.parent), "--study", "fields", "--commit", "abc"])


def test_each_evaluation_is_a_row(run, capsys):
    record(run)
    same = ["abc", "tools/train_net.py --config-file a.yaml INPUT.CROP_SIZE '(9, 9)'"]
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [
        ["fields", "ours", "1", "5", *same, "val/mIoU=30.000"],
        ["fields", "ours", "1", "10", *same, "val/mIoU=40.123 dev/mIoU=41.000 val/IoU-road=80.040 val/AP50=7.000"],
    ]


@pytest.mark.parametrize(("name", "message"), [("config.yaml", "is missing"), ("log.txt", "does not begin with")])
def test_a_run_without_its_command_or_config_is_named(run, capsys, name, message):
    (run / name).unlink() if name == "config.yaml" else (run / name).write_text("nothing\n")
    with pytest.raises(SystemExit):
        record(run)
    assert f"{run / name}: {message}" in capsys.readouterr().err
