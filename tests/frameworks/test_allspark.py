"""AllSpark's own parts; its losses are held by tests/golden/test_allspark_golden.py."""

import pytest
import torch
from helpers import ALLSPARK, SMALL, build_on_meta
from steps import losses_of, make

from wpl_d2.config import load_cfg
from wpl_d2.engine import Trainer
from wpl_d2.frameworks.allspark import channel_classes
from wpl_d2.utils.errors import InputError


def test_a_channel_joins_the_class_whose_map_it_resembles_however_large_both_are():
    maps = torch.tensor([[[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.1], [-9.0, 0.0, 0.0, -9.0]]])
    channels = torch.tensor(
        [[[0.1, 0.0, 0.0, 0.0], [0.0, 0.0, 40.0, 50.0], [-1.0, 0.0, 0.2, -1.0], [0.2, 9.0, 0.0, 0.0]]]
    )
    # Each cell of the maps is four pixels.
    logits = maps.unflatten(2, (2, 2)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert channel_classes(channels, logits, torch.Size((2, 2)), False).tolist() == [[0, 1, 2, 0]]


@pytest.mark.parametrize("crop", [(48, 64), (33, 65)])
def test_the_memory_has_the_size_of_the_last_map(tree, crop):
    framework, batch = make(tree, *ALLSPARK, "INPUT.CROP_SIZE", crop)
    images = framework.images(batch["unlabeled"], "image")
    maps, channels = framework.head.enter(framework.student.encode(images))
    classes, size, cells = framework.memory.ring.shape
    assert (classes, size, cells) == (3, maps.shape[1], channels.shape[2])


@pytest.mark.parametrize(("name", "shape"), [("voc", (21, 512, 17 * 17)), ("cityscapes", (19, 512, 26 * 26))])
def test_presets_have_the_published_memory(name, shape):
    assert build_on_meta(load_cfg(f"{name}/allspark")).memory.ring.shape == shape


def test_the_channels_of_a_step_join_the_memory_when_it_is_over(tree):
    framework, batch = make(tree, *ALLSPARK)
    before = framework.memory.ring.clone()
    assert before.std().item() == pytest.approx(1.0, abs=0.05)
    losses_of(framework, batch)
    (channels, classes), *more = framework._staged
    assert not more and torch.equal(framework.memory.ring, before)
    framework.after_step()
    expected, size = before.clone(), before.shape[1]
    for kind in range(3):
        for number, channel in enumerate(channels[classes == kind]):
            expected[kind, number % size] = channel
    assert torch.equal(framework.memory.ring, expected)
    assert framework.memory.pushed.tolist() == classes.bincount(minlength=3).tolist()
    assert framework._staged == []


def test_labeled_images_are_rebuilt_from_the_memory_once_it_is_time(tree):
    framework, batch = make(tree, *ALLSPARK, "FRAMEWORK.BURN_IN", 1)
    losses = {}
    for kind, factor in (("random", 1.0), ("another", -1.0)):
        framework.memory.ring.mul_(factor)
        for iteration in range(3):
            framework.iteration = iteration
            losses[kind, iteration] = losses_of(framework, batch)
            framework._staged = []
    changed = [losses["random", step]["loss_sem_seg"] != losses["another", step]["loss_sem_seg"] for step in range(3)]
    assert changed == [False, False, True]
    assert losses["random", 2]["loss_unsup"] > 0


def test_pseudo_labels_depend_on_the_batch_and_predictions_on_their_image_alone(tree):
    framework, batch = make(tree, *ALLSPARK)
    items = batch["unlabeled"]
    together, alone = (
        torch.cat([framework.label(part).output.logits for part in parts])
        for parts in ([items], [[item] for item in items])
    )
    student = framework.student.eval()
    images = framework.images(items, "image")
    with torch.no_grad():
        predicted = student.decode(student.encode(images), images.shape[2:]).logits
    torch.testing.assert_close(predicted, alone)
    assert not torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead"],
            r"NAME: SegFormerHead, but AllSpark trains its own; set it to AllSparkHead",
        ),
        (["INPUT.STRONG.LABELED", False], r"LABELED: False, but AllSpark learns from strong views"),
        (["INPUT.STRONG.VIEWS", 1], r"VIEWS: 1, but AllSpark needs 0"),
        (
            ["FRAMEWORK.NAME", "MeanTeacher", "INPUT.STRONG.LABELED", False],
            r"NAME: AllSparkHead, one half of which MeanTeacher would leave untrained; set it to SegFormerHead",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tree, opts, message):
    with pytest.raises(InputError, match=message):
        make(tree, *ALLSPARK, *opts)


def test_a_run_does_not_go_on_with_another_crop(tree, tmp_path):
    opts = [*SMALL, *ALLSPARK, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", 0]
    trainer = Trainer(tree.cfg(*opts))
    trainer.resume_or_load(False)
    trainer.train()
    with pytest.raises(InputError, match=r"another model, 1 keys differ \(memory\.ring"):
        Trainer(tree.cfg(*opts, "INPUT.CROP_SIZE", (96, 64), "SOLVER.MAX_ITER", 2)).resume_or_load(True)
