"""The paper's way by the command line: train a detector, keep its boxes, train and judge with them."""

import json
import os
import subprocess
import sys
from pathlib import Path, PurePath

import pytest
import torch
import yaml
from helpers import SMALL, SMALL_FPN

from wpl_d2.data.detection_cache import DetectionCache
from wpl_d2.utils.buckets import Bucket

ROOT = Path(__file__).resolve().parents[2]


def run(tool, *args, check=True):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=check)


def fetched(url, name, folder, read):
    Bucket(url).fetch([PurePath(name)], folder)
    return read(folder / name)


@pytest.mark.slow
def test_detector_cache_training_and_judging(tree, bucket, tmp_path):
    config, detector, boxes = tmp_path / "detector.yaml", tmp_path / "detector", tmp_path / "boxes.npz"
    common = ["SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 0.001]
    cfg = tree.cfg(*SMALL, *SMALL_FPN, *common, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01, "OUTPUT_DIR", str(detector))
    config.write_text(cfg.dump())
    run("train_net.py", "--config-file", config)
    cache = ["--weights", detector / "model_final.pth", "--dataset", f"{tree.name}_unlabeled", f"{tree.name}_val"]
    said = run("cache_boxes.py", *cache, "--output", boxes)
    assert f"of 7 images: {boxes}" in said.stdout
    found = DetectionCache.load(boxes)
    assert len(found) == 7

    # In a bucket, to which the second list's images are added.
    for names in (1, 2):
        run("cache_boxes.py", *cache[: 3 + names], "--output", f"{bucket}/boxes/detector.npz")
        assert len(fetched(f"{bucket}/boxes", "detector.npz", tmp_path, DetectionCache.load)) == (5, 7)[names - 1]
    same = DetectionCache.load(tmp_path / "detector.npz")
    assert all(torch.equal(same[name][1].boxes, found[name][1].boxes) for name in found)

    # The detector's classes are those it was trained on, in whatever order the description names them by now.
    description = yaml.safe_load(tree.yaml.read_text())
    (tree.root / "turned.yaml").write_text(yaml.safe_dump(description | {"objects": description["objects"][::-1]}))
    run("cache_boxes.py", *cache, "--output", tmp_path / "again.npz", "--description", tree.root / "turned.yaml")
    again = DetectionCache.load(tmp_path / "again.npz")
    assert all(again[name][1].classes.equal(found[name][1].classes) for name in found)

    opts = ["MODEL.DETECTOR.MODE", "cached", "MODEL.DETECTOR.CACHE", str(boxes), "RPPI.ENABLED", True]
    cfg = tree.cfg(*SMALL, *common, *opts, "RPPI.BOX_SCORE", 0.01, "OUTPUT_DIR", str(tmp_path / "cached"))
    config.write_text(cfg.dump())
    run("train_net.py", "--config-file", config)
    weights = ["MODEL.WEIGHTS", tmp_path / "cached" / "model_final.pth", "OUTPUT_DIR", tmp_path / "judged"]
    judge = ["--config-file", config, "--output", tmp_path / "judged.json", "--dataset", f"{tree.name}_val"]
    said = run("judge_pseudo_labels.py", *judge, *weights)
    assert "pixel ∩ box" in said.stdout
    judged = json.loads((tmp_path / "judged.json").read_text())
    assert {"all objects", "ground", "box", "ball"} == judged["boxes"]["0.85"].keys()
    judge[3] = f"{bucket}/judged/all.json"
    run("judge_pseudo_labels.py", *judge, *weights)
    assert fetched(f"{bucket}/judged", "all.json", tmp_path, lambda file: json.loads(file.read_text())) == judged

    # A part of a list, of which those images alone need masks.
    tree.mask("unlabeled0").unlink()
    part = ["--config-file", config, "--output", tmp_path / "part.json", "--dataset", f"{tree.name}_unlabeled"]
    run("judge_pseudo_labels.py", *part, "--images", 2, *weights)
    listed = json.loads((tmp_path / "part.json").read_text())["pseudo_labels"]
    assert listed.keys() == judged["pseudo_labels"].keys() and listed != judged["pseudo_labels"]
    refused = run("judge_pseudo_labels.py", *part, "--images", 0, *weights, check=False)
    assert (refused.returncode, "a part of 0 images is empty" in refused.stderr) == (2, True)

    # A data set of other classes is refused.
    (tree.root / "other.yaml").write_text(yaml.safe_dump(description | {"classes": ["ground", "ball", "box"]}))
    refused = run("cache_boxes.py", *cache, "--output", boxes, "--description", tree.root / "other.yaml", check=False)
    assert refused.returncode == 2
    assert "was trained on other classes" in refused.stderr.splitlines()[-1]
    assert "class 1 is 'box' in the checkpoint, but 'ball' in" in refused.stderr.splitlines()[-1]
