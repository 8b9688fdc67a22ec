"""Every framework on real photos, plain and weighted: it trains, its losses are finite, and its model is exported."""

import json
import math

import pytest
import yaml
from helpers import ALLSPARK, FRAMEWORKS, SMALL, SMALL_MIT, ST_PLUS_PLUS, UNIMATCH

from wpl_d2.cli import main
from wpl_d2.config.presets import ROOT
from wpl_d2.export import open_model

ONE_SCALE = ["FRAMEWORK.ST_PLUS_PLUS.LABELER", "last", "FRAMEWORK.ST_PLUS_PLUS.SCALES", (0.5,)]
CASES = FRAMEWORKS | {
    "AllSpark": [*SMALL_MIT, *ALLSPARK],
    "STPlusPlus": [*ST_PLUS_PLUS, *ONE_SCALE],
    "UniMatch on MiT-B0": [*UNIMATCH, *SMALL_MIT],
}
OPTS = [
    *("MODEL.WEIGHTS", "", "FRAMEWORK.BURN_IN", 0, "SOLVER.MAX_ITER", 2, "DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.UNLABELED_IMS_PER_BATCH", 2, "MODEL.SEM_SEG_HEAD.NORM", "BN"),
    *(
        "DATASETS.TRAIN",
        ("photos_labeled",),
        "DATASETS.UNLABELED",
        ("photos_unlabeled",),
        "DATASETS.TEST",
        ("photos_test",),
    ),
]


@pytest.fixture(scope="module")
def photos(shared, tmp_path_factory):
    """Describes CamVid with few photos."""
    folder = tmp_path_factory.mktemp("photos")
    description = yaml.safe_load((ROOT / "configs/datasets/camvid.yaml").read_text())
    lists = {}
    for name, source in {"labeled": "1_30_labeled", "unlabeled": "1_30_unlabeled", "test": "val"}.items():
        ids = (shared / f"camvid/splits/{source}.txt").read_text().split()
        lists[name] = str(folder / f"{name}.txt")
        (folder / f"{name}.txt").write_text("\n".join(ids[:6]))
    file = folder / "photos.yaml"
    file.write_text(yaml.safe_dump(description | {"name": "photos", "root": str(shared / "camvid"), "lists": lists}))
    return str(file)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_it_trains_on_photos_and_is_exported(name, weighted, photos, tmp_path):
    words = [*SMALL, *OPTS, *CASES[name], "WEIGHTING.ENABLED", weighted, "OUTPUT_DIR", tmp_path / "run"]
    assert main(["train", "camvid/mean_teacher", "DATASETS.DESCRIPTION", photos, *map(str, words)]) == 0
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    losses = [value for line in lines for key, value in json.loads(line).items() if "loss" in key]
    assert losses and all(math.isfinite(loss) for loss in losses)
    weights, file = tmp_path / "run/model_final.pth", tmp_path / "model.pt"
    export = ["export", "--weights", str(weights), "--format", "torchscript", "--output", str(file)]
    assert main(export) in (0, None)
    assert len(open_model(file, trust_code=True).metadata["classes"]) == 11
