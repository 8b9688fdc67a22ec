"""The notebook runs from its first cell to its last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_notebook_trains_and_predicts(tmp_path):
    cells = json.loads((ROOT / "notebooks" / "first_steps.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    short = code.replace("STEPS = 450", "STEPS = 2").replace("output/first_steps", str(tmp_path / "run"))
    assert short.count(str(tmp_path)) == short.count("STEPS = 2") == 1
    env = os.environ | {"DETECTRON2_DATASETS": str(tmp_path / "datasets"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", short]
    done = subprocess.run(
        command, cwd=ROOT / "notebooks", env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "32 labeled and 500 unlabeled images" in done.stdout
    assert "mIoU " in done.stdout and "% of this image's pixels are right" in done.stdout
    assert (tmp_path / "run" / "preview.png").is_file()
    assert (tmp_path / "run" / "model_final.pth").is_file()
