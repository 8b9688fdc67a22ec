"""What a run's keys are, and where each of them comes from."""

import pytest
import yaml

from wpl_d2.cli import main
from wpl_d2.config import load_cfg


@pytest.fixture
def show(tree, tmp_path, capsys):
    """Prints a config that stands on another one."""
    base, file = tmp_path / "base.yaml", tmp_path / "run.yaml"
    lists = {"TRAIN": [f"{tree.name}_labeled"], "UNLABELED": [f"{tree.name}_unlabeled"]}
    solver = {"EPOCHS": 30, "REFERENCE_IMS_PER_BATCH": 2, "UNLABELED_IMS_PER_BATCH": 2, "BASE_LR": 0.1}
    base.write_text(yaml.safe_dump({"DATASETS": {"DESCRIPTION": str(tree.yaml), **lists}, "SOLVER": solver}))
    file.write_text(f"_BASE_: {base.name}\nSOLVER: {{IMS_PER_BATCH: 2}}\nMODEL: {{DEVICE: cpu}}\n")

    def call(*words):
        assert main(["show-config", "--config-file", str(file), *words]) == 0
        return capsys.readouterr().out

    return call


def comments(text):
    """By the last part of each key."""
    lines = (line.partition("  # ") for line in text.splitlines() if "  # " in line)
    return {line.split(":")[0].strip(): comment for line, _, comment in lines}


def test_each_value_is_printed_with_where_it_comes_from(show, tmp_path):
    found = comments(show("--changed", "SEED", "5", "SOLVER.IMS_PER_BATCH", "4"))
    assert found["SEED"] == found["IMS_PER_BATCH"] == "command line"
    assert found["DESCRIPTION"] == str(tmp_path / "base.yaml")
    assert found["DEVICE"] == str(tmp_path / "run.yaml")
    # 30 epochs of 2 steps, at twice the batch.
    assert found["MAX_ITER"] == "resolved, was 40000 (default)"
    assert found["BASE_LR"] == f"resolved, was 0.1 ({tmp_path / 'base.yaml'})"
    assert "EVAL_PERIOD" not in found and "EPOCHS" not in found


def test_what_is_printed_is_a_config_of_the_same_run(show, tmp_path):
    (tmp_path / "printed.yaml").write_text(show("SOLVER.IMS_PER_BATCH", "4"))
    cfg = load_cfg(str(tmp_path / "printed.yaml"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.EPOCHS, cfg.SOLVER.REFERENCE_IMS_PER_BATCH) == (30, 0, 4)
    assert cfg.DATASETS.TRAIN and pytest.approx(0.2) == cfg.SOLVER.BASE_LR


def test_without_the_lists_it_shows_what_an_evaluation_reads(show, tree):
    (tree.root / "unlabeled.txt").unlink()
    with pytest.raises(SystemExit):
        show()
    assert comments(show("--eval-only"))["MAX_ITER"] == "default"
