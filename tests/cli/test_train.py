"""`wpl train`: on a data set's YAML alone, and again in the folder of an earlier run."""

import json
import os
from fnmatch import fnmatch

import pytest
import yaml
from helpers import SMALL

from wpl_d2.checkpoint.run_folder import RUN_FILES
from wpl_d2.cli import main

OPTS = [*map(str, SMALL), "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0"]


def iterations(folder):
    return [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.mark.slow
def test_a_data_set_alone_trains_and_its_folder_goes_on_only_with_the_same_config(tree, monkeypatch, capfd):
    monkeypatch.chdir(tree.root)
    (tree.root / "val.txt").rename(tree.root / "dev.txt")
    tree.describe(lists={"labeled": "labeled.txt", "unlabeled": "unlabeled.txt"})
    assert main(["train", "data.yaml", *OPTS]) == 0
    folder = tree.root / "output" / tree.name
    used = yaml.safe_load((folder / "config.yaml").read_text())["DATASETS"]
    assert used["TRAIN"] == [f"{tree.name}_labeled"] and used["UNLABELED"] == [f"{tree.name}_unlabeled"]
    assert used["TEST"] == []
    for name in os.listdir(folder):
        assert name == ".lock" or any(fnmatch(name, pattern) for pattern in RUN_FILES), name

    taken = iterations(folder)
    assert main(["train", "data.yaml", *OPTS, "DATALOADER.NUM_WORKERS", "1"]) == 0
    assert "Training from iteration 2 to 2" in (folder / "log.txt").read_text()
    assert iterations(folder) == taken and not (folder / "earlier").exists()

    with pytest.raises(SystemExit) as end:
        main(["train", "data.yaml", *OPTS, "SOLVER.BASE_LR", "0.5", "SEED", "7"])
    assert end.value.code == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "SEED 7, there 0" in said and "SOLVER.BASE_LR 0.5, there 0.000" in said and "add --new" in said
    assert main(["train", "data.yaml", "--new", *OPTS, "SOLVER.BASE_LR", "0.5"]) == 0
    assert (folder / "earlier" / "model_final.pth").is_file() and iterations(folder) == taken
