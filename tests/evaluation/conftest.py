import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from wpl_d2.data import load_description, register

CLASSES = ["sky", "car", "dog", "tree"]


@pytest.fixture
def tiny(tmp_path):
    """A registered data set of three images: no mask has a tree (3), some pixels are void (7)."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, (height, width) in enumerate([(40, 50), (64, 64), (33, 70)]):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[4:22, 5:20] = 1
        mask[10:30, 25:45] = 2
        mask[:, -2:] = 7
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    (tmp_path / "val.txt").write_text("0\n1\n2\n")
    description = {
        "name": f"tiny_{tmp_path.name}",
        "root": ".." + "/" + tmp_path.name,
        "image": "images/{id}.png",
        "mask": "masks/{id}.png",
        "classes": CLASSES,
        "objects": ["car", "dog"],
        "ignore": 7,
        "lists": {"val": "val.txt"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(description))
    register(load_description(tmp_path / "tiny.yaml"))
    name = f"{description['name']}_val"
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
