"""Each tool with what users mistype, leave out, mix up or point to the wrong place: one line says how to mend it."""

import contextlib
import json
import runpy
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from helpers import SMALL, SMALL_FPN, make_tree

from wpl_d2.engine import Trainer

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Names in the arguments below, and what they stand for: the files of two trainings, and what is none of theirs."""
    folder = tmp_path_factory.mktemp("wrong_arguments")
    tree = make_tree(folder)
    (folder / "text").write_text("no weights, no picture")
    (folder / "empty").mkdir()
    (folder / "broken.yaml").write_text("a: [1")
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "metrics.json").write_text(json.dumps({"loss": 1.0}))
    (folder / "seeds" / "run_s0").mkdir(parents=True)
    (folder / "seeds" / "run_s0" / "metrics.json").write_text(json.dumps({"loss": 1.0}))
    for name, opts in (("run", []), ("detector", SMALL_FPN)):
        cfg = tree.cfg(*SMALL, *opts, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(folder / name))
        (folder / name).mkdir()
        Trainer(cfg).train()
        (folder / f"{name}.yaml").write_text(cfg.dump())
    names = ("text", "empty", "broken.yaml", "runs", "seeds", "run.yaml", "detector.yaml")
    return {
        **{f"@{name}": str(folder / name) for name in names},
        "@weights": str(folder / "run" / "model_final.pth"),
        "@detector": str(folder / "detector" / "model_final.pth"),
        "@description": str(tree.yaml),
        "@images": str(tree.root / "images"),
        "@val": f"{tree.name}_val",
        "@out": str(folder / "out"),
    }


def run(name, args):
    """A tool in this process: exit status, and what it printed to stderr."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(StringIO()) as errors:
        patch.setattr(sys, "argv", [name, *args])
        try:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            return end.code, errors.getvalue()
    return 0, errors.getvalue()


CACHE, JUDGE = "--weights @detector --output @out/b.npz", "--config-file @run.yaml --dataset @val"
PREDICT, EXPORT = "--weights @weights --input @images", "--weights @weights --format torchscript"
WRONG = {
    "train_net": {
        "": "--config-file: is missing; give one, such as configs/quickstart.yaml",
        "--config-file @empty": "Is a directory; give a YAML file",
        "--config-file @weights": "model_final.pth: is not UTF-8 text",
        "--config-file @broken.yaml": "broken.yaml: is not YAML",
        "--config-file quikstart": "quikstart: No such file or directory; did you mean quickstart?",
        "--config-file @run.yaml --nonsense": "unrecognized arguments: --nonsense",
        "--config-file @run.yaml --num-gpus -1": "--num-gpus: -1; give 1 or more",
        "--config-file @run.yaml SEED 1 SOLVER.BASE_LR --resume": "SOLVER.BASE_LR has no value",
        "--config-file @run.yaml OUTPUT_DIR @text": "OUTPUT_DIR: @text cannot be written to",
        "--config-file @run.yaml OUTPUT_DIR @text/out": "OUTPUT_DIR: @text/out cannot be written to",
        "--config-file @run.yaml DATASETS.DESCRIPTION @run.yaml": "@run.yaml: is a config, not a data set",
        "--config-file @run.yaml MODEL.WEIGHTS @text": "@text: cannot be read (it is not a weight file)",
        "--config-file @run.yaml MODEL.WEIGHTS @detector": "is of another model than the config",
        "--config-file @run.yaml --num-gpus 4 SOLVER.IMS_PER_BATCH 6": "6 images do not divide among 4 processes",
        "--config-file @run.yaml MODEL.DEVICE gpu": "MODEL.DEVICE: 'gpu' is not a device",
        "--config-file @run.yaml FRAMEWORK.NAME mean_teacher": "did you mean MeanTeacher",
        "--config-file @run.yaml SOLVER.OPTIMIZER Adam": "did you mean AdamW",
        "--config-file @run.yaml --eval-only": "MODEL.WEIGHTS: empty is not a checkpoint of a training",
        "--config-file @run.yaml --eval-only MODEL.WEIGHTS @detector": "is of another model than the config",
        "--config-file @run.yaml --eval-only --resume OUTPUT_DIR @empty": "OUTPUT_DIR: no checkpoint in @empty",
        "--config-file @run.yaml MODEL.DETECTOR.MODE cached MODEL.DETECTOR.CACHE @text": "@text: is not a file of",
    },
    "cache_boxes": {
        "--weights @weights": "required: --dataset, --output",
        "--weights @weights --dataset @val --output @out/b.npz": "has no detector; give a checkpoint of",
        "--weights @run.yaml --dataset @val --output @out/b.npz": "(it is not a weight file)",
        f"{CACHE} --dataset @valid": "did you mean @val",
        f"{CACHE} --dataset @val --num-gpus -3": "--num-gpus: -3; give 1 or more",
        f"{CACHE} --dataset @val --description @run.yaml": "@run.yaml: is a config, not a data set's description",
        f"{CACHE} --dataset coco_2017_val": "cannot be read",
        "--weights @detector --dataset @val --output @empty": "--output: @empty is a folder; give the name of a file",
        "--weights @detector --dataset @val --output @text": "@text: is not a file of boxes",
        "--weights @detector --dataset @val --output @text/b.npz": "--output: @text cannot be written to",
    },
    "judge_pseudo_labels": {
        "--config-file @run.yaml": "required: --dataset",
        JUDGE: "MODEL.WEIGHTS: empty is not a checkpoint of a training",
        f"{JUDGE}id MODEL.WEIGHTS @weights": "did you mean @val",
        f"{JUDGE} MODEL.WEIGHTS @detector": "is of another model than the config",
        f"{JUDGE} MODEL.WEIGHTS": "MODEL.WEIGHTS has no value",
        f"{JUDGE} MODEL.WEIGHTS @weights --output @empty": "--output: @empty is a folder",
        f"MODEL.WEIGHTS @weights {JUDGE} --output @text/a.json": "--output: @text cannot be written to",
        "--config-file @run.yaml MODEL.WEIGHTS @weights --dataset coco_2017_val": "'coco_2017_val' cannot be read",
    },
    "check_dataset": {
        "": "required: description",
        "nowhere.yaml": "nowhere.yaml: no such file",
        "@run.yaml": "@run.yaml: is a config, not a data set's description",
        "@weights": "model_final.pth: is not UTF-8 text",
        "@description --min-box-area -5": "'-5' is not a whole number of 1 or more",
        "@description @description": "unrecognized arguments",
    },
    "visualize_data": {
        "--config-file @run.yaml": "required: --output",
        "--config-file @run.yaml --output @text": "--output: @text cannot be written to",
        "--config-file @run.yaml --output @out --num 0": "'0' is not a whole number of 1 or more",
        "--config-file @run.yaml --output @out DATASETS.TRAIN ()": "DATASETS.TRAIN: names no list",
        "--output @run.yaml --config-file @out": "@out: No such file or directory; give a YAML file",
    },
    "summarize_runs": {
        "nowhere": "nowhere: no such folder; give one that holds a folder for each run",
        "@empty": "@empty: holds no runs; runs are FOLDER/NAME_sSEED/metrics.json",
        "@runs": "@runs: holds no run with a seed in its name, but first; runs are FOLDER/NAME_sSEED/metrics.json",
        "@runs/first": "@runs/first: is itself a run; give the folder above it",
        "@seeds": "no run has measured sem_seg/mIoU; give --key",
        "@seeds --key loss --baseline other": "--baseline: 'other' is not known; valid: run",
        "@seeds --key loss --runs other": "--runs: 'other' is not known; valid: run",
        "@seeds --study a": "--study: @seeds is a folder of runs, which belong together; leave it out",
        "nowhere.csv": "nowhere.csv: no such file; give a table of runs",
    },
    "record_runs": {
        "@seeds --commit abc": "required: --study",
        "nowhere --study a --commit abc": "nowhere: no such folder; give one that holds a folder for each run",
        "@seeds --study a --commit abc": "run_s0/config.yaml: is missing; leave this run out",
    },
    "predict": {
        PREDICT: "required: --output",
        f"{PREDICT} --output @text": "--output: @text cannot be written to",
        f"{PREDICT} --output @out --min-score 7": "'7' is not a number from 0 to 1",
        f"{PREDICT} --output @out --batch-size 0": "'0' is not a whole number of 1 or more",
        f"{PREDICT} --output @out --device gpu": "--device: 'gpu' is not a device",
        f"{PREDICT} --output @out SEED 1": "SEED cannot change a trained model",
        f"{PREDICT} TEST.INFERENCE.MODE --output @out": "TEST.INFERENCE.MODE has no value",
        "--weights @run.yaml --input @images --output @out": "@run.yaml: cannot be read (it is not a weight file)",
        "--weights @weights --input @empty --output @out": "@empty: no images there",
    },
    "export_model": {
        EXPORT: "required: --output",
        f"{EXPORT} --output @empty": "--output: @empty is a folder",
        f"{EXPORT} --output @text/a.pt": "--output: @text cannot be written to",
        f"{EXPORT} --output @out/a.onnx": "does not end in .pt",
        f"{EXPORT} --output @out/a.pt --images nowhere": "--images: no images in nowhere",
        f"{EXPORT} --output @out/a.pt --boxes": "--boxes: @weights has no detector",
        "--weights @text --format torchscript --output @out/a.pt": "@text: cannot be read (it is not a weight file)",
    },
    "analyze_model": {
        "": "--config-file: give either a config or the --weights",
        "--config-file @run.yaml --weights @weights": "--config-file: give either a config or the --weights",
        "--config-file @run.yaml --size 0 64": "'0' is not a whole number of 1 or more",
        "--weights @weights SEED 1": "SEED cannot change a trained model",
        "SEED --config-file @run.yaml": "SEED has no value",
    },
    "show_config": {
        "SEED 1": "required: --config-file",
        "--config-file @broken.yaml": "broken.yaml: is not YAML",
        "--config-file @run.yaml SEDE 1": "overrides: no config key SEDE; did you mean SEED",
        "--config-file @run.yaml DATASETS.SPLIT 1_8": "has no list '1_8_labeled'; name lists in DATASETS.TRAIN",
        "--config-file @run.yaml SOLVER.EPOCHS 3 SOLVER.MAX_ITER 3": "sets SOLVER.EPOCHS and SOLVER.MAX_ITER",
    },
    "benchmark": {
        "SEED 1": "--config-file: is missing; give one",
        "--config-file @run.yaml --steps 0": "'0' is not a whole number of 1 or more",
        "--config-file @run.yaml DATASETS.UNLABELED () --threads 1": "DATASETS.UNLABELED: empty",
    },
    "benchmark_evaluation": {
        "--classes 300": "--classes: 300; take 2 to 254",
        "--height 0": "'0' is not a whole number of 1 or more",
        "--device gpu": "--device: 'gpu' is not a device",
        "--threads x": "'x' is not a whole number of 1 or more",
    },
    "prepare_dataset": {
        "voc2012": "invalid choice: 'voc2012'",
        "voc --root @text": "--root: @text is not a folder",
        "voc --workers 0": "'0' is not a whole number of 1 or more",
        "voc --balanced": "--balanced: is for --fraction",
        "voc --root @empty --splits @text": "@text: no such folder",
    },
}


@pytest.mark.parametrize(
    ("name", "line", "message"), [(name, line, said) for name, lines in WRONG.items() for line, said in lines.items()]
)
def test_what_is_wrong_is_said_in_one_line(made, name, line, message):
    # Longer names first, since some are others' beginnings.
    for short, long in sorted(made.items(), reverse=True):
        line, message = line.replace(short, long), message.replace(short, long)
    threads = torch.get_num_threads()
    status, errors = run(name, line.split())
    torch.set_num_threads(threads)
    assert status == 2
    assert "Traceback" not in errors
    *usage, last = errors.splitlines()
    assert "error: " in last and message in last
    assert not usage or usage[0].startswith("usage: ")


def test_each_tool_was_tried():
    assert WRONG.keys() == {path.stem for path in TOOLS.glob("*.py")}
