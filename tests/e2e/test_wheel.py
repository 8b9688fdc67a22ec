"""The package as `pip install` leaves it: the command and the presets, without the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_an_installed_wheel_trains_by_its_presets_from_another_folder(tmp_path):
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in ("configs", "wpl_d2"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True)
    for file in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*pip, *wheel], check=True)
    (built,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(built)], check=True)
    shutil.rmtree(source)

    env = {**os.environ, "PYTHONPATH": str(site), "DETECTRON2_DATASETS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env["WPL_D2_CACHE"] = str(tmp_path / "cache")
    # By its path, then by its name: the same config, so that the same run goes on.
    for config, start in (("configs/quickstart.yaml", 0), ("quickstart", 2)):
        words = ["train", config, "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0"]
        command = [str(site / "bin" / "wpl"), *words]
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"Training from iteration {start} to 2" in done.stdout
    assert (elsewhere / "output/quickstart/model_final.pth").is_file()
