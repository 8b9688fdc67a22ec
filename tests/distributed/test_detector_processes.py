"""The detector alone, and the file of its boxes, on two processes."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from helpers import CLASSES, SMALL, SMALL_FPN, Tree

from wpl_d2 import build_model
from wpl_d2.data.detection_cache import CacheMetadata, DetectionCache
from wpl_d2.engine import Trainer, launch
from wpl_d2.inference import detection_caching as box_caching

pytestmark = pytest.mark.slow


def config(args):
    opts = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 0]
    cfg = Tree(args.root, args.name).cfg(*SMALL, *SMALL_FPN, *opts, "TEST.EVAL_PERIOD", 3)
    cfg.OUTPUT_DIR = str(args.output)
    cfg.freeze()
    return cfg


def train_and_cache(args):
    """In each process: train, check that all ranks have one detector, then share the images among them."""
    cfg = config(args)
    torch.manual_seed(comm.get_rank())  # what differs at the start must not last
    trainer = Trainer(cfg)
    trainer.train()
    student = trainer.framework.student
    sums = comm.all_gather({key: value.double().sum().item() for key, value in student.state_dict().items()})
    assert sums[0] == sums[1]
    if comm.is_main_process():
        assert "AP" in trainer.last_results["bbox"]
    seen = []
    student.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0]["image_id"]))
    write(student, cfg, args, "two.npz")
    ours, theirs = comm.all_gather(seen)
    assert ours and theirs and not {*ours} & {*theirs}


def write(student, cfg, args, file):
    box_caching.PART = 2  # here, since a started process knows nothing of what a test changed
    records = DatasetCatalog.get(f"{args.name}_unlabeled")
    origin = CacheMetadata("digest", tuple(CLASSES), 0.0)
    return box_caching.cache_detections(student.eval(), records, origin, (2, 1), args.output / file, workers=0)


def test_ranks_stay_equal_and_share_the_images(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(box_caching, "PART", 2)
    args = SimpleNamespace(
        **{"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"},
        **{"root": tree.root, "name": tree.name, "output": tmp_path},
    )
    launch(train_and_cache, args)
    cfg = config(args)
    student = build_model(cfg)
    student.load_state_dict(torch.load(tmp_path / "model_final.pth")["model"])
    one, two = write(student, cfg, args, "one.npz"), DetectionCache.load(tmp_path / "two.npz")
    assert one.keys() == two.keys() and len(one) == 5
    for name, (size, found) in one.items():
        assert len(found.boxes) and size == two[name][0]
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, two[name][1], strict=True))
