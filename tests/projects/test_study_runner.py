"""Runs of a study: several at a time, each one once, from where it was stopped, and none takes the others along."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from study_helpers import BASE, make_result, make_study
from wpl_study.results import append_result, read_results
from wpl_study.runner import Runner, describe_code
from wpl_study.runs import Judging, Run, select
from wpl_study.study import Detector

# In place of a training: `train.py FOLDER WHAT` leaves what a training leaves, after what it is told to do.
CHILD = """
import json, os, pathlib, signal, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
with (folder / "calls").open("a") as calls:
    calls.write(what + "\\n")
(folder / "seen").write_text(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "nice": os.nice(0)}))
def save(signum, frame):
    (folder / "saved").write_text(signal.Signals(signum).name)
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    sys.exit(128 + signum)
signal.signal(signal.SIGTERM, save)
if what == "fail":
    print("some log\\nerror: masks: are missing; add them\\nlast words")
    sys.exit(2)
if what == "crash":
    print("Traceback\\nMemoryError: no more")
    sys.exit(1)
if what == "wait" and not (folder / "saved").exists():
    time.sleep(60)
for name in ("model_0000003.pth", "model_best.pth", "model_final.pth", "last_checkpoint"):
    (folder / name).write_text("model_final.pth")
score = {"sem_seg/mIoU": 40.0, "student/sem_seg/mIoU": 39.0}
with (folder / "metrics.json").open("a") as metrics:
    metrics.write(json.dumps({"iteration": 600, "time": 0.5, **score}) + "\\n")
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Trainings become CHILD; what each does is in its row's name behind the last underscore."""
    script = tmp_path / "train.py"
    script.write_text(CHILD)
    what = property(lambda run: (str(script), str(run.folder), run.row.name.rpartition("_")[2]))
    monkeypatch.setattr(Run, "training", what)
    return script


def rows_of(*names, **settings):
    return make_study({name: (settings, names[0]) for name in names}, draws=("a",))


def calls(root, name):
    file = root / name / "a" / "calls"
    return file.read_text().split() if file.is_file() else []


def test_runs_are_written_down_and_not_run_again(tmp_path, child, capsys):
    runs = select(rows_of("x_ok", "y_ok"), tmp_path)
    for _ in range(2):
        runner = Runner(tmp_path, 2)
        runner.run(runs)
        assert not runner.failed
    assert calls(tmp_path, "x_ok") == calls(tmp_path, "y_ok") == ["ok"]
    results = read_results(tmp_path)
    assert results.keys() == {("x_ok", "a"), ("y_ok", "a")}
    assert results["x_ok", "a"].dev_teacher == "40.0000"
    assert results["x_ok", "a"].commit == describe_code()
    assert "x_ok/a: finished, mIoU on camvid_dev: 40.00" in capsys.readouterr().out
    # Of a finished run the last checkpoint is kept.
    assert [file.name for file in (tmp_path / "x_ok" / "a").glob("*.pth")] == ["model_final.pth"]


def test_no_detector_is_trained_for_runs_that_are_finished(tmp_path, child, monkeypatch):
    asked = []
    monkeypatch.setattr(Run, "detector_commands", lambda run, detector: asked.append(run.name) or ())
    boxes = {"MODEL.DETECTOR.MODE": "cached", "MODEL.DETECTOR.CACHE": "{boxes}"}
    study = make_study({"x_ok": (boxes, "x_ok")}, detector=Detector(BASE))
    append_result(tmp_path, make_result("x_ok", "a", dev_teacher=40))
    runner = Runner(tmp_path, 1)
    runner.run(select(study, tmp_path, draws=["a"]))
    assert not asked and not runner.failed
    runner.run(select(study, tmp_path, draws=["a", "b"]))
    assert asked == ["x_ok/b"] and runner.failed == ["x_ok/b"]  # here the detector leaves no boxes


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs_share_the_cores_and_give_way(tmp_path, child, jobs):
    Runner(tmp_path, jobs).run(select(rows_of("x_ok"), tmp_path))
    seen = json.loads((tmp_path / "x_ok" / "a" / "seen").read_text())
    assert seen["threads"] == str(max(1, len(os.sched_getaffinity(0)) // jobs))
    assert seen["nice"] > os.nice(0) or os.nice(0) == 19


def test_several_run_at_a_time(tmp_path, child):
    names = [f"{letter}_wait" for letter in "abc"]
    threading.Thread(target=_when, args=(tmp_path, names[:2], lambda: os.kill(os.getpid(), signal.SIGTERM))).start()
    with pytest.raises(SystemExit):
        Runner(tmp_path, 2).run(select(rows_of(*names), tmp_path))
    assert [calls(tmp_path, name) for name in names] == [["wait"], ["wait"], []]


def _when(root, names, act):
    """Act once runs have begun."""
    deadline = time.monotonic() + 60
    while not all((root / name / "a" / "seen").is_file() for name in names) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    act()


def test_what_fails_is_named_and_the_others_go_on(tmp_path, child, capsys):
    study = make_study(
        {
            "a_fail": ({}, "c_ok"),
            "b_crash": ({}, "c_ok"),
            "typo": ({"WEIGHTING.KINDD": "rank"}, "c_ok"),
            "boxes": ({"MODEL.DETECTOR.CACHE": "{boxes}"}, "c_ok"),
            "c_ok": ({}, "c_ok"),
        },
        draws=("a",),
    )
    runner = Runner(tmp_path, 1)
    runner.run(select(study, tmp_path))
    assert runner.failed == ["typo", "a_fail/a", "b_crash/a", "boxes/a"]
    said = capsys.readouterr().out
    assert "a_fail/a: error: masks: are missing; add them (train.py ended with status 2; see " in said
    assert "b_crash/a: error: MemoryError: no more (train.py ended with status 1; see " in said
    assert "typo: error: overrides: no config key WEIGHTING.KINDD; did you mean" in said
    assert "boxes.npz: is missing, its detector could not be made" in said
    assert read_results(tmp_path).keys() == {("c_ok", "a")}
    # What failed is tried again, with whatever settings.
    again = Runner(tmp_path, 1)
    again.run(select(make_study({"a_fail": ({"WEIGHTING.K": "7"}, "a_fail")}, draws=("a",)), tmp_path))
    assert calls(tmp_path, "a_fail") == ["fail", "fail"] and again.failed == ["a_fail/a"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_children_which_save_and_the_same_command_goes_on(
    tmp_path, child, signum, capsys, ordinary_signals
):
    runs = select(rows_of("x_wait", "y_ok"), tmp_path)
    threading.Thread(target=_when, args=(tmp_path, ["x_wait"], lambda: os.kill(os.getpid(), signum))).start()
    handlers = [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with pytest.raises(SystemExit) as ended:
        Runner(tmp_path, 1).run(runs)
    assert ended.value.code == 128 + signum
    assert handlers == [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    assert (tmp_path / "x_wait" / "a" / "saved").read_text() == "SIGTERM"
    assert calls(tmp_path, "y_ok") == [] and not read_results(tmp_path)
    said = capsys.readouterr().out
    assert "error" not in said and "y_ok" not in said
    runner = Runner(tmp_path, 1)
    runner.run(runs)
    assert not runner.failed
    assert read_results(tmp_path).keys() == {("x_wait", "a"), ("y_ok", "a")}


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, child):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        runner = Runner(tmp_path, 1)
        with runner._processes.end_on_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert runner._processes.signum == 0


@pytest.mark.parametrize("finished", [True, False])
def test_a_row_whose_settings_have_changed_is_refused(tmp_path, child, finished, capsys):
    name = "x_ok" if finished else "x_wait"
    if not finished:
        threading.Thread(target=_when, args=(tmp_path, [name], lambda: os.kill(os.getpid(), signal.SIGTERM))).start()
        with pytest.raises(SystemExit):
            Runner(tmp_path, 1).run(select(rows_of(name), tmp_path))
    else:
        Runner(tmp_path, 1).run(select(rows_of(name), tmp_path))
    runner = Runner(tmp_path, 1)
    runner.run(select(rows_of(name, **{"WEIGHTING.K": "7"}), tmp_path))
    assert runner.failed == [f"{name}/a"]
    assert (
        "was run with other settings (WEIGHTING.K was not set, is 7); give the row another" in capsys.readouterr().out
    )
    assert len(calls(tmp_path, name)) == 1


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path, child, capsys):
    runs = select(rows_of("x_ok", "y_ok"), tmp_path)
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runner = Runner(tmp_path, 1)
        runner.run(runs)
    assert "x_ok/a: is left to another process" in capsys.readouterr().out
    assert not runner.failed and read_results(tmp_path).keys() == {("y_ok", "a")}


@pytest.mark.slow
def test_the_children_of_a_killed_study_keep_its_runs(tmp_path, child):
    """A study that is killed for good leaves trainings behind; the next one must not train in their folders."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from study_helpers import make_study
from wpl_study.runner import Runner
from wpl_study.runs import Run, select
Run.training = property(lambda run: ({str(child)!r}, str(run.folder), "wait"))
root = Path({str(tmp_path)!r})
Runner(root, 1).run(select(make_study({{"x_wait": ({{}}, "x_wait")}}, draws=("a",)), root))
"""
    study = subprocess.Popen([sys.executable, "-c", code])
    _when(tmp_path, ["x_wait"], study.kill)
    study.wait()
    runner = Runner(tmp_path, 1)
    runner.run(select(rows_of("x_wait"), tmp_path))
    assert calls(tmp_path, "x_wait") == ["wait"] and not read_results(tmp_path) and not runner.failed
    (orphan,) = (pid for pid in _pids() if str(child) in _command(pid))
    os.kill(orphan, signal.SIGTERM)
    for _ in range(100):
        if (tmp_path / "x_wait" / "a" / "saved").is_file():
            break
        time.sleep(0.1)
    Runner(tmp_path, 1).run(select(rows_of("x_wait"), tmp_path))
    assert read_results(tmp_path).keys() == {("x_wait", "a")}


def _pids():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_labels_are_judged_once_where_the_checkpoint_is_there(tmp_path, child, monkeypatch):
    judge = tmp_path / "judge.py"
    judge.write_text("import sys; open(sys.argv[1], 'x').write('{}')")

    def judgings(run):
        steps = {"first": "model_0000003.pth", "gone": "model_0000007.pth", "last": "model_final.pth"}
        return [
            Judging(file := run.folder / f"{step}.json", run.folder / name, (str(judge), str(file)))
            for step, name in steps.items()
        ]

    monkeypatch.setattr(Run, "judgings", judgings)
    runs = select(rows_of("x_ok"), tmp_path)
    for _ in range(2):
        runner = Runner(tmp_path, 1)
        runner.run(runs)
        assert not runner.failed
        assert sorted(file.stem for file in runs[0].folder.glob("*.json")) == ["first", "last", "metrics", "run"]
    # A run of which the line is there, but not all that was asked for.
    (runs[0].folder / "last.json").unlink()
    Runner(tmp_path, 1).run(runs)
    assert (runs[0].folder / "last.json").is_file() and calls(tmp_path, "x_ok") == ["ok"]


def test_a_line_without_a_folder_is_a_finished_run(tmp_path, child):
    append_result(tmp_path, make_result("x_ok", "a", dev_teacher=40))
    Runner(tmp_path, 1).run(select(rows_of("x_ok"), tmp_path))
    assert calls(tmp_path, "x_ok") == []


def test_the_commits_of_all_parts_of_a_run_are_told(tmp_path, child, monkeypatch):
    commits = iter(["aaa1111", "bbb2222-dirty"])
    monkeypatch.setattr("wpl_study.runner.describe_code", lambda: next(commits))
    threading.Thread(target=_when, args=(tmp_path, ["x_wait"], lambda: os.kill(os.getpid(), signal.SIGTERM))).start()
    with pytest.raises(SystemExit):
        Runner(tmp_path, 1).run(select(rows_of("x_wait"), tmp_path))
    Runner(tmp_path, 1).run(select(rows_of("x_wait"), tmp_path))
    assert read_results(tmp_path)["x_wait", "a"].commit == "aaa1111 and bbb2222-dirty"


def test_the_code_is_described_by_git(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True)

    package = tmp_path / "wpl_d2" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr("wpl_study.runner.wpl_d2.__file__", str(package))
    monkeypatch.setattr("wpl_study.runner.REPOSITORY", tmp_path)
    assert describe_code() == "unknown"
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        git(*words)
    commit = git("rev-parse", "--short", "HEAD").stdout.strip()
    assert describe_code() == commit
    package.write_text("changed = True")
    assert describe_code() == f"{commit}-dirty"
    # The tools of one checkout with the package of another.
    monkeypatch.setattr("wpl_study.runner.REPOSITORY", tmp_path / "other")
    assert describe_code() == f"{commit}-dirty + unknown"
