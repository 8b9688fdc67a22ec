import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name, *args, env=None, status=0):
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / name), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=400, check=False)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def config(tree, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
DATASETS: {{DESCRIPTION: {tree.yaml}, TRAIN: ["{tree.name}_labeled"], UNLABELED: ["{tree.name}_unlabeled"]}}
INPUT: {{CROP_SIZE: [48, 48]}}
MODEL: {{BACKBONE: {{NAME: build_timm_backbone}}, DETECTOR: {{MODE: shared}}}}
SOLVER: {{IMS_PER_BATCH: 2, UNLABELED_IMS_PER_BATCH: 2}}
WEIGHTING: {{ENABLED: True}}
RPPI: {{ENABLED: True}}
DATALOADER: {{NUM_WORKERS: 0}}
VERSION: 2
"""
    )
    return path


def test_benchmark_ends_with_one_json_object(config):
    out = tool("benchmark.py", "--config-file", config, "--steps", 2, "--threads", 1)
    result = json.loads(out.splitlines()[-1])
    assert 0 < result["weighting_s"] < result["weighted_step_s"]
    assert result["weighting_overhead"] == pytest.approx(result["weighting_s"] / result["plain_step_s"], rel=0.01)
    assert result["detector_forward_s"] > 0
    assert result["naive_to_overlap"] > 1
    assert result["weighted_peak_mib"] >= result["plain_peak_mib"] > 0
    assert result["weighted_operations"] > result["plain_operations"] > 0


@pytest.mark.parametrize(
    ("name", "views", "buffers"), [("UniMatch", 2, "ema"), ("AEL", 0, "none")], ids=["UniMatch", "AEL"]
)
def test_benchmark_measures_frameworks_with_further_forwards(config, name, views, buffers):
    # AEL asks for images: without them its step would fail.
    opts = ["FRAMEWORK.NAME", name, "INPUT.STRONG.VIEWS", views, "FRAMEWORK.EMA_BUFFERS", buffers]
    opts += ["MODEL.TIMM.NAME", "test_resnet", "MODEL.DETECTOR.MODE", "none"]
    out = tool("benchmark.py", "--config-file", config, "--steps", 1, "--threads", 1, *opts, "RPPI.ENABLED", False)
    result = json.loads(out.splitlines()[-1])
    assert 0 < result["weighting_s"] < result["weighted_step_s"]
    assert result["plain_step_s"] > 0
    if name == "UniMatch":
        assert result["published_step_s"] > 0
        ratio = result["weighted_step_s"] / result["published_step_s"]
        assert result["weighted_to_published"] == pytest.approx(ratio, rel=0.01)
    else:
        assert "published_step_s" not in result


def test_benchmark_compares_prediction_with_the_bare_network(config, tree):
    opts = ["DATASETS.TEST", f"{tree.name}_val", "MODEL.TIMM.NAME", "test_resnet", "MODEL.DETECTOR.MODE", "none"]
    opts += ["RPPI.ENABLED", False, "WEIGHTING.ENABLED", False]
    out = tool("benchmark.py", "--part", "predict", "--config-file", config, "--steps", 2, "--threads", 1, *opts)
    result = json.loads(out.splitlines()[-1])
    # Files are read and written beside the network, and nothing is counted twice.
    assert result["predict_image_s"] > result["network_image_s"] > 0
    after = result["first_image_s"] - result["import_torch_s"]
    assert result["first_image_after_torch_s"] == pytest.approx(after, abs=0.001) and after > 0


def test_benchmark_compares_evaluation_with_the_bare_network(config, tree):
    opts = ["DATASETS.TEST", f"{tree.name}_val", "MODEL.TIMM.NAME", "test_resnet", "MODEL.DETECTOR.MODE", "none"]
    opts += ["RPPI.ENABLED", False, "WEIGHTING.ENABLED", False, "DATALOADER.NUM_WORKERS", 0]
    out = tool("benchmark.py", "--part", "evaluate", "--config-file", config, "--steps", 2, "--threads", 1, *opts)
    result = json.loads(out.splitlines()[-1])
    assert result["evaluate_image_s"] > result["network_image_s"] > 0
