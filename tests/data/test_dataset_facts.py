"""What is measured of a data set to fit settings to it, and that they train."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from wpl_d2.cli import main
from wpl_d2.config import load_cfg
from wpl_d2.config.config import fitted_settings
from wpl_d2.config.layers import value_of
from wpl_d2.data.dataset_facts import measure_dataset
from wpl_d2.data.datasets import load_description, register
from wpl_d2.utils.errors import InputError


def test_measures_are_those_of_the_labeled_images(shared):
    description = replace(load_description("configs/datasets/camvid.yaml", shared / "camvid"), name="measured")
    register(description)
    lists = ["measured_1_30_labeled"], ["measured_1_30_unlabeled"], ["measured_val"]
    facts = measure_dataset(description, *lists, min_area=90)
    assert (facts.labeled, facts.unlabeled, facts.val, facts.size) == (12, 355, 171, (360, 480))
    assert len(facts.boxes) == 5
    assert facts.box_side == 12
    assert facts.box_sizes[0] < facts.box_sizes[-1]
    half = measure_dataset(description, *lists, min_area=2000)
    assert sum(half.boxes) < sum(facts.boxes)
    assert half.box_side > facts.box_side


def test_the_settings_are_a_layer_beneath_the_users(tree):
    tree.describe()
    cfg = load_cfg(str(tree.yaml))
    settings = fitted_settings(str(tree.yaml))
    assert {setting.key for setting in settings} >= {"INPUT.CROP_SIZE", "SOLVER.MAX_ITER", "FRAMEWORK.BURN_IN"}
    for key, value, _ in settings:
        assert value_of(cfg, key) == value
    opts = ["INPUT.CROP_SIZE", "(96, 96)", "SOLVER.MAX_ITER", "40"]
    own = load_cfg(str(tree.yaml), opts)
    assert own.INPUT.CROP_SIZE == (96, 96)
    assert own.FRAMEWORK.BURN_IN == 20
    assert not {"INPUT.CROP_SIZE", "SOLVER.MAX_ITER"} & {
        setting.key for setting in fitted_settings(str(tree.yaml), opts)
    }
    assert load_cfg(str(tree.yaml), ["DATASETS.UNLABELED", "()"]).FRAMEWORK.NAME == "Supervised"
    assert fitted_settings("configs/quickstart.yaml") == []
    with pytest.raises(InputError, match=r"overrides: SOLVER\.MAX_ITER has no value"):
        fitted_settings(str(tree.yaml), ["SOLVER.MAX_ITER"])


SPLITS = {"camvid": "1_30_", "voc_animals": "1_16_", "nyuv2": "1_16_", "digits": ""}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLITS)
def test_fitted_settings_train(name, shared, tmp_path):
    lists = {"TRAIN": "labeled", "UNLABELED": "unlabeled", "TEST": "val"}
    names = {key: f"{name}_{'' if key == 'TEST' else SPLITS[name]}{value}" for key, value in lists.items()}
    opts = [word for key, value in names.items() for word in (f"DATASETS.{key}", value)]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "wpl_d2.cli", "train", f"configs/datasets/{name}.yaml", *opts]
    steps = ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "OUTPUT_DIR", str(out)]
    env = {**os.environ, "DETECTRON2_DATASETS": str(shared), "WPL_D2_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *steps], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "settings that fit the data" in done.stdout
    assert all(row["reason"] for row in json.loads((out / "fitted.json").read_text()))
    assert (out / "model_final.pth").is_file()
    told_by_color = load_cfg(str(out / "config.yaml")).INPUT.STRONG.GRAY_PROB == 0
    assert told_by_color == (name == "digits")


@pytest.mark.slow
def test_reasons_stay_with_the_run_that_they_are_of(tree, tmp_path):
    tree.describe()
    out = tmp_path / "run"
    for batch in (2, 1):
        opts = ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "SOLVER.IMS_PER_BATCH", str(batch)]
        main(["train", str(tree.yaml), "--new", "OUTPUT_DIR", str(out), *opts])
    rates = [json.loads((folder / "fitted.json").read_text()) for folder in (out / "earlier", out)]
    first, second = ({row["key"]: row["value"] for row in rows}["SOLVER.BASE_LR"] for rows in rates)
    assert first > second
