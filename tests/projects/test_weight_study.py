"""The walk-through of the project's README, at toy size on a folder data set: which weight is good on my data?"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import SMALL_FPN
from study_helpers import make_result
from wpl_study.results import append_result
from wpl_study.runner import describe_code

from wpl_d2.utils.errors import InputError

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "WeightStudy"
TOOL, README = PROJECT / "weight_study.py", PROJECT / "README.md"
SMALL = {
    "MODEL": {
        "DEVICE": "cpu",
        "BACKBONE": {"NAME": "build_timm_backbone"},
        "TIMM": {"NAME": "resnet18"},
        "SEM_SEG_HEAD": {"CONVS_DIM": 32, "ASPP_CHANNELS": 32, "USE_DEPTHWISE_SEPARABLE_CONV": True},
    },
    "INPUT": {"CROP_SIZE": [48, 64]},
    "SOLVER": {
        "IMS_PER_BATCH": 2,
        "UNLABELED_IMS_PER_BATCH": 2,
        "BASE_LR": 0.01,
        "MAX_ITER": 12,
        "CHECKPOINT_PERIOD": 4,
    },
    "DATALOADER": {"NUM_WORKERS": 0},
    "VERSION": 2,
}


@pytest.fixture
def study(tree, tmp_path):
    """The README's study on the data set of `tree`, with small presets, and two rows more."""
    tree.describe(name="fields")
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL))
    text = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)[1])
    assert text["overrides"]["DATASETS.DESCRIPTION"] == "fields.yaml"
    text["base"] = str(tmp_path / "base.yaml")
    text["overrides"] |= {
        "DATASETS.DESCRIPTION": str(tree.yaml),
        "SOLVER.MAX_ITER": 12,
        "WEIGHTING.MIN_COUNT": 2,
        "WEIGHTING.LABELED_CONF": 0.1,
    }
    text["judge"] = {"images": 3, "steps": [4]}
    few = {"DATASETS.DESCRIPTION": str(tree.yaml), "SOLVER.MAX_ITER": 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01}
    detector = dict(zip(SMALL_FPN[::2], SMALL_FPN[1::2], strict=True))
    text["detector"] = {"base": text["base"], "overrides": detector | few}
    boxes = {"MODEL.DETECTOR.MODE": "cached", "MODEL.DETECTOR.CACHE": "{boxes}", "RPPI.ENABLED": True}
    text["rows"] |= {
        "boxes": text["rows"]["rank"] | boxes | {"RPPI.BOX_SCORE": 0.02},
        "typo": {"WEIGHTING.KINDD": "rank"},
    }
    file = tmp_path / "fields_study.yaml"
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    return file


def lines_of(root):
    with (root / "results.csv").open(newline="") as lines:
        return {(line["row"], line["draw"]): line for line in csv.DictReader(lines)}


@pytest.mark.slow
def test_a_study_is_stopped_goes_on_and_gives_an_answer(study, tmp_path):
    root = tmp_path / "out"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*words):
        command = [sys.executable, str(TOOL), words[0], str(study), "--output", str(root), *words[1:]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    running = call("run", "--rows", "rank", "--draws", "a", "--jobs", "1")
    folder, deadline = root / "rank" / "a", time.monotonic() + 300
    while not (folder / "model_0000003.pth").is_file():
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()[0][-3000:]
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    said = running.communicate(timeout=200)[0]
    assert running.returncode == 128 + signal.SIGTERM, said
    assert (folder / "last_checkpoint").is_file() and not (root / "results.csv").exists()

    running = call("run", "--jobs", "2", "--draws", "a")
    said = running.communicate(timeout=550)[0]
    assert running.returncode == 1 and said.splitlines()[-1] == "not finished: typo", said[-3000:]
    assert "typo: error: overrides: no config key WEIGHTING.KINDD" in said
    lines = lines_of(root)
    assert lines.keys() == {(row, "a") for row in ("plain", "rank", "boxes", "oracle_weights")}
    # It went on: the second start of the training is from a checkpoint.
    starts = re.findall(r"Training from iteration (\d+) to 12", (folder / "log.txt").read_text())
    assert len(starts) == 2 and starts[0] == "0" and int(starts[1]) >= 4
    for (row, _), line in lines.items():
        assert all(0 <= float(line[f"dev_{model}"]) <= 100 for model in ("teacher", "student"))
        assert (line["seed"], line["steps"], line["val_teacher"]) == ("0", "12", "")
        assert line["commit"] == describe_code()
        assert ("train_oracle.py" in line["command"]) == row.startswith("oracle")
        judged = [root / row / "a" / f"judged_00000{step}_3.json" for step in ("04", "12")]
        figures = [json.loads(file.read_text())["pseudo_labels"] for file in judged]
        assert all({"auroc-rank-sure", "coverage-weighted-all objects"} <= part.keys() for part in figures)
        assert [file.name for file in (root / row / "a").glob("*.pth")] == ["model_final.pth"]
    assert (root / "_detector" / "a" / "boxes.npz").is_file()

    again = call("run", "--rows", "plain,rank,boxes,oracle_weights", "--draws", "a")
    assert again.communicate(timeout=200)[0] == "" and again.returncode == 0
    collected = call("collect").communicate(timeout=200)[0]
    text = (root / "study.md").read_text()
    assert collected == text and text.startswith("# What weights are worth")
    for file in re.findall(r"\((\w+\.png)\)", text):
        assert (root / file).stat().st_size > 1000
    assert "| typo " in text and "not run" in text
    assert f"| {float(lines['rank', 'a']['dev_teacher']):.2f} (1)" in text


def test_rows_are_listed_with_what_is_finished_and_what_is_wrong(study, tmp_path, weight_study):
    root = tmp_path / "out"
    root.mkdir()
    append_result(root, make_result("rank", "b"))
    listed = weight_study("list", study, "--output", root).splitlines()
    assert [line.split()[0] for line in listed[2:]] == ["plain", "rank", "oracle_weights", "boxes", "typo"]
    assert listed[2].split() == ["plain", "FRAMEWORK.THRESHOLD", "0.0"]
    assert listed[3].split()[:4] == ["rank", "b", "FRAMEWORK.THRESHOLD", "0.0"]
    assert "cannot be run: overrides: no config key WEIGHTING.KINDD" in listed[6]


def test_commands_are_shown_the_detectors_first(study, tmp_path, weight_study):
    shown = weight_study("show", study, "--rows", "boxes,oracle_weights", "--draws", "b", "--output", tmp_path / "out")
    words = [line.split() for line in shown.splitlines()]
    assert [Path(line[0]).name if line[0] != "#" else line[1] for line in words] == [
        *("boxes/b", "train_net.py", "cache_boxes.py", "train_net.py"),
        *("judge_pseudo_labels.py",) * 2,
        *("oracle_weights/b", "train_oracle.py"),
        *("judge_pseudo_labels.py",) * 2,
    ]
    # By default below the current folder, under the study's name.
    assert " OUTPUT_DIR output/study/fields_study/plain/a" in weight_study(
        "show", study, "--rows", "plain", "--draws", "a"
    )


def test_wrong_words_are_refused(study, tmp_path, weight_study):
    for words, message in {
        ("list", tmp_path / "none.yaml"): r"STUDY: .*none\.yaml is not a file",
        ("run", study, "--rows", "rnk"): "--rows: 'rnk' is not known; did you mean rank",
        ("run", study, "--jobs", 0): "--jobs: 0 runs at a time; take at least 1",
        ("collect", study, "--output", tmp_path / "none"): "none: holds no results.csv",
        ("show", study, "--draws", "z"): "--draws: 'z' is not known",
    }.items():
        with pytest.raises(InputError, match=message):
            weight_study(*words)
