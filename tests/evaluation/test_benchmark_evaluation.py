import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools/benchmark_evaluation.py"


def run(*args):
    return subprocess.run([sys.executable, str(TOOL), *args], capture_output=True, text=True, check=False)


def test_the_last_line_compares_equal_numbers():
    done = run("--height", "512", "--width", "1024", "--rounds", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["miou_difference"] < 1e-9
    assert result["own_ms"] > 0 and abs(result["ratio"] - result["own_ms"] / result["detectron2_ms"]) < 0.01
    # At most 1/10 at the full size; here the fixed costs of an image weigh more.
    assert result["cpu_ratio"] < 0.2
