import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def command(*args):
    return [sys.executable, "-W", "ignore", str(ROOT / "tools" / "train_net.py"), *map(str, args)]


def train_net(*args, env=None, check=True):
    """The command as a user types it, from another folder than the repository's."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    done = subprocess.run(command(*args), capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """A made-up PASCAL VOC: palette masks, void borders, lists of ids."""
    root = tmp_path_factory.mktemp("datasets") / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "splits"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {"92_labeled": 4, "92_unlabeled": 6, "val": 2}
    for name, count in lists.items():
        ids = [f"{name}_{i}" for i in range(count)]
        (root / "splits" / f"{name}.txt").write_text("\n".join(ids))
        for i, image_id in enumerate(ids):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((160, 120)).save(root / "JPEGImages" / f"{image_id}.jpg")
            if name != "92_unlabeled":
                mask = np.zeros((120, 160), np.uint8)
                mask[20:90, 30:120] = 255
                mask[24:86, 34:116] = 1 + (5 * i) % 20
                image = Image.fromarray(mask, "P")
                image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
                image.save(root / "SegmentationClass" / f"{image_id}.png")
    return {"DETECTRON2_DATASETS": str(root.parent), "WPL_D2_CACHE": str(root.parent / "cache")}


TOY = [
    *("MODEL.WEIGHTS", "", "INPUT.CROP_SIZE", "(97,97)", "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 1),
    *("SOLVER.UNLABELED_IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2),
    # All 101 layers, but narrow ones: a checkpoint of the full width has a gigabyte and more.
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.ROI_BOX_HEAD.FC_DIM", 64),
]


@pytest.mark.slow
def test_a_normal_start_shows_its_own_lines_alone(tmp_path):
    given = ["--config-file", ROOT / "configs/quickstart.yaml", "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", tmp_path / "out"]
    words = [
        word for word in command(*given, "TEST.EVAL_PERIOD", 0, "FRAMEWORK.BURN_IN", 0) if word not in ("-W", "ignore")
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert all(re.match(r"(WARNING )?\[.* wpl_d2.*\]: ", line) for line in lines)
    assert any("step 2/2  loss " in line for line in lines)
    assert "Serializing" in (tmp_path / "out/log.txt").read_text()


@pytest.mark.slow
def test_the_readme_command_on_two_processes(voc, tmp_path):
    config = ROOT / "configs" / "voc_1_16.yaml"
    done = train_net("--config-file", config, "--num-gpus", 2, *TOY, "OUTPUT_DIR", tmp_path / "out", env=voc)
    assert re.search(r"mIoU on voc_val: \d+\.\d\d", done.stdout)
    assert (tmp_path / "out" / "model_final.pth").is_file()
    assert (tmp_path / "out" / "preview.png").is_file()
    assert (tmp_path / "out" / "report.html").is_file() and "report: " in done.stdout

    assert {"loss_sem_seg", "loss_unsup", "loss_rpn_cls", "loss_box_reg"} <= _keys(tmp_path / "out")
    # What the training left is evaluated by the same command.
    weights = ["MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval"]
    again = train_net("--config-file", config, "--eval-only", *TOY[2:], *weights, env=voc)
    trained, evaluated = (re.search(r"mIoU on voc_val: (\d+\.\d\d)", run.stdout)[1] for run in (done, again))
    assert trained == evaluated


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_images_that_an_evaluation_cannot_read_are_named_and_cost_no_run(tree, tmp_path, processes):
    names = [f"val{i}" for i in range(40)]
    for name in names[2:]:
        Image.open(tree.image("val0")).save(tree.image(name))
        Image.open(tree.mask("val0")).save(tree.mask(name))
    (tree.root / "val.txt").write_text("\n".join(names))
    config = tmp_path / "run.yaml"
    config.write_text(
        f"""
DATASETS: {{DESCRIPTION: {tree.yaml}, TRAIN: ["{tree.name}_labeled"], UNLABELED: ["{tree.name}_unlabeled"],
           TEST: ["{tree.name}_val"]}}
INPUT: {{CROP_SIZE: [48, 48]}}
MODEL: {{BACKBONE: {{NAME: build_timm_backbone}}, TIMM: {{NAME: test_resnet}},
        SEM_SEG_HEAD: {{CONVS_DIM: 16, ASPP_CHANNELS: 16}}}}
SOLVER: {{MAX_ITER: 2, IMS_PER_BATCH: 2, UNLABELED_IMS_PER_BATCH: 2}}
TEST: {{EVAL_PERIOD: 2}}
DATALOADER: {{NUM_WORKERS: 1}}
VERSION: 2
"""
    )
    for file in (tree.image("val4"), tree.mask("val34")):
        file.write_bytes(file.read_bytes()[:-60])
    args = ["--config-file", config, "--num-gpus", processes, "OUTPUT_DIR", tmp_path / "out"]
    refused = train_net(*args, check=False)
    assert refused.returncode == 2
    for file in (tree.image("val4"), tree.mask("val34")):
        assert f"{file}: cannot be read" in refused.stderr
    assert not (tmp_path / "out/model_final.pth").exists()

    # Not among the few that are looked at: as if they had broken after the start.
    done = train_net(*args, "DATASETS.VERIFY_FILES", False, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    said = done.stdout + done.stderr
    for file in (tree.image("val4"), tree.mask("val34")):
        assert f"Left out of the evaluation: {file}: cannot be read" in said
    assert re.search(r"mIoU on .*_val: \d+\.\d\d", said) and "the exit status is 1" in said
    assert (tmp_path / "out/model_final.pth").is_file()
    metrics = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    assert metrics[-1]["left_out/images"] == 2


@pytest.mark.slow
def test_the_quickstart_makes_its_data_trains_and_draws(tmp_path):
    short = ["SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2]
    config, out = ROOT / "configs" / "quickstart.yaml", tmp_path / "out"
    env = {"DETECTRON2_DATASETS": str(tmp_path), "WPL_D2_CACHE": str(tmp_path / "cache")}
    done = train_net("--config-file", config, *short, "OUTPUT_DIR", out, env=env)
    assert re.search(r"mIoU on digits_val: \d+\.\d\d", done.stdout)
    for name in ("model_final.pth", "metrics.json", "preview.png"):
        assert (out / name).is_file() and str(out / name) in done.stdout
    assert (tmp_path / "digits" / "splits").is_dir()


@pytest.mark.slow
def test_a_preset_trains_on_camvid(shared, tmp_path):
    short = ["SOLVER.MAX_ITER", 2, "FRAMEWORK.BURN_IN", 1, "TEST.EVAL_PERIOD", 0]
    env = {"DETECTRON2_DATASETS": str(shared), "WPL_D2_CACHE": str(tmp_path / "cache")}
    config = ROOT / "configs" / "camvid" / "mean_teacher_wpl.yaml"
    train_net("--config-file", config, "DATASETS.SPLIT", "1_8", *short, "OUTPUT_DIR", tmp_path / "out", env=env)
    keys = {"loss_sem_seg", "loss_unsup", "loss_rpn_cls", "loss_box_reg", "pseudo/reliable"}
    assert keys <= _keys(tmp_path / "out")


def _keys(output):
    return set().union(*(json.loads(line) for line in (output / "metrics.json").read_text().splitlines()))


WRONG = {
    "no config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR": ["SOLVER.BASE_LRR", "1"],
    "add the missing value": ["SOLVER.BASE_LR"],
    "did you mean voc_92_labeled": ["DATASETS.TRAIN", '("voc_92_labelled",)'],
    "learns from unlabeled images; name a list of them": ["DATASETS.UNLABELED", "()"],
    "both labeled and unlabeled": ["DATASETS.UNLABELED", '("voc_92_labeled",)'],
    "TEST.EVALUATOR: 'confussion' is not known; did you mean confusion": ["TEST.EVALUATOR", "confussion"],
    "TEST.INFERENCE.MODE: 'slides' is not known; did you mean slide?": ["TEST.INFERENCE.MODE", "slides"],
    "is not a checkpoint of a training": ["--eval-only"],
    "DATASETS.TEST: names no list; name one to evaluate on": ["--eval-only", "DATASETS.TEST", "()"],
}
# The tool with one list of arguments after the other, in one process: it is the start that takes long.
EACH = """
import contextlib, io, json, sys
from wpl_d2.cli import run
said = []
for args in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            run("train_net", args)
        except SystemExit as end:
            said.append((end.code, errors.getvalue()))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def refused(voc, tmp_path_factory):
    """Message to exit status and what was printed to stderr; no process could be started from here."""
    folder = tmp_path_factory.mktemp("refused")
    common = ["OUTPUT_DIR", str(folder / "out"), "--config-file", str(ROOT / "configs" / "voc_1_16.yaml")]
    runs = [[*common, "MODEL.WEIGHTS", "", "--num-gpus", "4", *args] for args in WRONG.values()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EACH],
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        env={**os.environ, **voc},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(WRONG, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_ends_with_one_clear_line(refused, message):
    status, errors = refused[message]
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_config_that_would_run_code_is_refused(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text(f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {tmp_path}/ran"]\n')
    done = train_net("--config-file", config, check=False)
    assert done.returncode == 2
    assert "python/object/apply:os.system" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()
