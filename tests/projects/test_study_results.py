"""What finished runs gave is written whole and once, whoever writes, and read back as it is."""

import csv
import multiprocessing
from pathlib import Path

import pytest
from study_helpers import make_result, make_study, write_metrics
from wpl_study.results import FILE, append_result, measure, read_results
from wpl_study.runs import Run

from wpl_d2.utils.errors import InputError


def run_of(tmp_path, row="host", **settings):
    study = make_study({"host": ({}, "host"), "other": (settings, "host")}, draws=("a", "b"))
    return Run(study, study.rows[row], study.draws["b"], tmp_path)


def test_both_models_on_both_lists_after_the_last_step(tmp_path):
    run = run_of(tmp_path)
    first = {"sem_seg/mIoU": 1.0, "student/sem_seg/mIoU": 2.0}  # of an evaluation before
    last = {
        "sem_seg/mIoU": 40.123456,
        "student/sem_seg/mIoU": 39.0,
        "camvid_val/sem_seg/mIoU": 38.0,
        "student/camvid_val/sem_seg/mIoU": 37.0,
    }
    times = [{"iteration": i, "time": time} for i, time in enumerate([9.0, 8.0, 7.0, 0.5, 0.4, 0.6])]
    write_metrics(run.folder, [first, *times, last])
    result = measure(run, "abc1234-dirty")
    assert (result.dev_teacher, result.dev_student) == ("40.1235", "39.0000")
    assert (result.val_teacher, result.val_student) == ("38.0000", "37.0000")
    assert (result.row, result.draw, result.seed, result.commit) == ("host", "b", "1", "abc1234-dirty")
    assert (result.steps, result.seconds_per_step) == ("600", "0.5000")
    assert "tools/train_net.py" in result.command and f"OUTPUT_DIR {run.folder}" in result.command
    assert result.deployed("dev") == 40.1235


def test_without_a_teacher_it_is_the_student_and_unmeasured_lists_stay_empty(tmp_path):
    run = run_of(tmp_path, "other", **{"FRAMEWORK.NAME": "Supervised"})
    write_metrics(run.folder, [{"iteration": 600, "sem_seg/mIoU": 44.0}])
    result = measure(run, "abc")
    assert (result.dev_teacher, result.dev_student, result.val_student) == ("", "44.0000", "")
    assert (result.deployed("dev"), result.deployed("val"), result.seconds_per_step) == (44.0, None, "")


@pytest.mark.parametrize("rows", [[], [{"iteration": 600, "time": 0.3}]])
def test_a_training_without_an_evaluation_is_named(tmp_path, rows):
    run = run_of(tmp_path)
    write_metrics(run.folder, rows)
    with pytest.raises(InputError, match=r"metrics\.json: has no mIoU on camvid_dev; remove"):
        measure(run, "abc")


def test_lines_come_back_as_they_were_whatever_is_in_them(tmp_path):
    assert read_results(tmp_path) == {}
    odd = make_result("host", "a", dev_teacher=40.5, command='x "(1, 2)" \'["a"]\', y\nz')
    append_result(tmp_path, odd)
    append_result(tmp_path, make_result("host", "b"))
    assert read_results(tmp_path) == {("host", "a"): odd, ("host", "b"): make_result("host", "b")}
    with (tmp_path / FILE).open(newline="") as lines:
        assert [line["row"] for line in csv.DictReader(lines)] == ["host", "host"]


def test_a_run_has_one_line(tmp_path):
    append_result(tmp_path, make_result("host", "a", dev_teacher=1))
    append_result(tmp_path, make_result("host", "a", dev_teacher=2))
    assert [result.dev_teacher for result in read_results(tmp_path).values()] == ["1"]


def _append_many(root, first):
    for number in range(first, first + 25):
        append_result(Path(root), make_result(f"row{number}", "a", dev_teacher=number, command="word " * 2000))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    # The ranges overlap: lines of one run by two processes.
    writers = [context.Process(target=_append_many, args=(str(tmp_path), first)) for first in (0, 10, 20, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    results = read_results(tmp_path)
    assert {row: result.dev_teacher for (row, _), result in results.items()} == {f"row{n}": str(n) for n in range(55)}
    assert len((tmp_path / FILE).read_text().splitlines()) == 56


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text.rstrip("\n"), 3),
        (lambda text: text[:-30] + "\n", 3),
        (lambda text: text + "x,y\n", 4),
        (lambda text: text.replace("40.5", "4o.5"), 2),
        (lambda text: text.replace("row,draw", "raw,draw"), 2),
        (lambda text: text.replace("host,b", "host,b,more"), 3),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_written_behind_it(tmp_path, damage, line):
    append_result(tmp_path, make_result("host", "a", dev_teacher=40.5))
    append_result(tmp_path, make_result("host", "b", dev_teacher=41))
    file = tmp_path / FILE
    damaged = damage(file.read_text())
    file.write_text(damaged)
    message = rf"results\.csv, line {line}: is damaged; take it out"
    for read in (lambda: read_results(tmp_path), lambda: append_result(tmp_path, make_result("host", "c"))):
        with pytest.raises(InputError, match=message):
            read()
    assert file.read_text() == damaged
