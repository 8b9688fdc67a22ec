from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from wpl_d2 import get_cfg
from wpl_d2.data import setup_datasets

CLASSES = ["ground", "box", "ball"]


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets beside the checkout, for the tests that need them."""
    if not (SHARED / "camvid").is_dir():
        pytest.skip(f"{SHARED} with the CamVid and COCO test data is not there")
    return SHARED


@dataclass
class Tree:
    """A tiny data set on disk: `name` is unique, because Detectron2's catalog is global."""

    root: Path
    name: str

    @property
    def yaml(self):
        return self.root / "data.yaml"

    def image(self, name):
        return self.root / "images" / f"{name}.png"

    def mask(self, name):
        return self.root / "masks" / f"{name}.png"

    def write_mask(self, name, mask):
        Image.fromarray(mask).save(self.mask(name))

    def describe(self, **changes):
        text = {
            "name": self.name,
            "root": "./",
            "image": "images/{id}.png",
            "mask": "masks/{id}.png",
            "classes": CLASSES,
            "objects": ["ball", "box"],
            "lists": {"labeled": "labeled.txt", "unlabeled": "unlabeled.txt", "val": "val.txt"},
            **changes,
        }
        self.yaml.write_text(yaml.safe_dump({key: value for key, value in text.items() if value is not None}))
        return self.yaml

    def cfg(self, *overrides):
        cfg = get_cfg()
        cfg.DATASETS.DESCRIPTION = str(self.yaml)
        cfg.DATASETS.TRAIN = (f"{self.name}_labeled",)
        cfg.DATASETS.UNLABELED = (f"{self.name}_unlabeled",)
        cfg.DATASETS.TEST = (f"{self.name}_val",)
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.UNLABELED_IMS_PER_BATCH = 2
        cfg.INPUT.CROP_SIZE = (40, 48)
        cfg.SEED = 3
        cfg.merge_from_list(list(overrides))
        setup_datasets(cfg)
        return cfg


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """3 labeled, 5 unlabeled and 2 validation images of 60x50 (width x height), with masks for all."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    made = Tree(tmp_path / "set", tmp_path.name)
    (made.root / "images").mkdir(parents=True)
    (made.root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("labeled", 3), ("unlabeled", 5), ("val", 2)):
        names = [f"{stem}{i}" for i in range(count)]
        (made.root / f"{stem}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(made.image(name))
            mask = np.zeros((50, 60), dtype=np.uint8)
            mask[5 + i : 25, 8:30] = 1
            mask[30:45, 35 : 50 + i] = 2
            mask[:3] = 255
            made.write_mask(name, mask)
    made.describe()
    return made


# A model and a schedule that a test can afford: resnet18, small crops, detector and weighting on.
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18"),
    *("MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", True, "INPUT.CROP_SIZE", (48, 64)),
    *("WEIGHTING.ENABLED", True, "WEIGHTING.MIN_COUNT", 2, "WEIGHTING.LABELED_CONF", 0.2),
    *("FRAMEWORK.THRESHOLD", 0.2, "FRAMEWORK.CUTMIX.PROB", 1.0, "TEST.EVAL_PERIOD", 0),
]
SMALL_DETECTOR = [
    *("MODEL.DETECTOR.MODE", "shared", "MODEL.DETECTOR.CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        [[16, 32]],
        "RPPI.ENABLED",
        True,
        "RPPI.BOX_SCORE",
        0.05,
        "RPPI.CONF",
        0.2,
    ),
]
