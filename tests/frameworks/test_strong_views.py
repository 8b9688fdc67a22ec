import numpy as np
import pytest
import torch
from helpers import AUGSEG, U2PL, UNIMATCH
from PIL import Image
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.data import UnlabeledMapper, build_train_loader

FRAMEWORKS = {"AugSeg": AUGSEG, "MeanTeacher": [], "U2PL": U2PL, "UniMatch": UNIMATCH}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_views_made_on_the_device_are_those_of_the_loader(tree, name):
    opts = [*FRAMEWORKS[name], "WEIGHTING.ENABLED", False]
    by_loader, first = make(tree, *opts)
    on_device, second = make(tree, *opts, "INPUT.STRONG.DEVICE", "model")
    ours, theirs = by_loader.make_strong_views(first["unlabeled"]), on_device.make_strong_views(second["unlabeled"])
    assert "strong" not in second["unlabeled"][0]
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == torch.uint8
    difference = (ours.int() - theirs.int()).abs().float()
    assert difference.median() <= 1 and difference.mean() < 4  # equalized noise moves whole steps
    for item, other in zip(first["unlabeled"], second["unlabeled"], strict=True):
        assert torch.equal(item["image"], other["image"])
    for loss, other in zip(losses_of(by_loader, first).values(), losses_of(on_device, second).values(), strict=True):
        assert loss.item() == pytest.approx(other.item(), rel=0.2)


def test_views_of_other_channels_are_the_same_in_both_places(tree):
    for file in (tree.root / "images").iterdir():
        red, green, blue = np.moveaxis(np.asarray(Image.open(file)).astype(np.uint16), 2, 0)
        np.save(file.with_suffix(".npy"), np.stack([green + blue, red, green, blue, red // 2], axis=2) * 2)
    names = ["nir", "red", "green", "blue", "swir"]
    tree.describe(image="images/{id}.npy", channels=names, value_range=[0, 1020])
    opts = [*AUGSEG, "WEIGHTING.ENABLED", False]
    by_loader, first = make(tree, *opts)
    on_device, second = make(tree, *opts, "INPUT.STRONG.DEVICE", "model")
    ours, theirs = by_loader.make_strong_views(first["unlabeled"]), on_device.make_strong_views(second["unlabeled"])
    assert ours.shape[2] == 5 and ours.dtype == torch.float32
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-2)
    assert not torch.equal(ours[:, 0], by_loader.stack(first["unlabeled"], "image"))
    assert all(loss.isfinite() for loss in losses_of(on_device, second).values())


def test_draws_do_not_depend_on_the_number_of_workers(tree):
    opts = ["INPUT.STRONG.DEVICE", "model"]
    found = []
    for workers in (0, 2):
        loader = build_train_loader(tree.cfg(*opts, "DATALOADER.NUM_WORKERS", workers))
        items = [item for _ in range(3) for item in next(loader)["unlabeled"]]
        found.append(
            [[[(step.__name__, value) for step, value in view] for view in item["operations"]] for item in items]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("where", "device", "gpus", "on_device"),
    [
        ("auto", "cpu", True, False),
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),  # such a run becomes one on the CPU
        ("cpu", "cuda", True, False),
        ("model", "cpu", False, True),
    ],
)
def test_the_config_says_where(tree, monkeypatch, where, device, gpus, on_device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    cfg = tree.cfg("INPUT.STRONG.DEVICE", where)
    cfg.MODEL.DEVICE = device
    assert UnlabeledMapper(cfg).on_device == on_device


def test_an_unknown_place_is_named(tree):
    with pytest.raises(ValueError, match=r"INPUT\.STRONG\.DEVICE.*gpu"):
        build_framework(tree.cfg("INPUT.STRONG.DEVICE", "gpu"))
