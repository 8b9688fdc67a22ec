import itertools
import random

import numpy as np
import pytest
import torch
from PIL import Image

from wpl_d2.data import EvalDataset, build_labeled_loader, build_train_loader, build_unlabeled_loader, seeded
from wpl_d2.data.loader import unlabeled_dataset
from wpl_d2.data.sampler import CountedDataset, CountSampler
from wpl_d2.utils.errors import InputError


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "get_fields"):
        return same(a.gt_boxes.tensor, b.gt_boxes.tensor) and same(a.gt_classes, b.gt_classes)
    return a == b


def test_starting_later_gives_what_would_have_come(tree):
    cfg = tree.cfg("MODEL.DETECTOR.MODE", "shared")
    straight = take(build_train_loader(cfg), 6)
    assert len(straight[0]["labeled"]) == len(straight[0]["unlabeled"]) == 2
    assert same(straight[3:], take(build_train_loader(cfg, start_iter=3), 3))
    assert not same(straight[0], straight[1])
    assert not same(straight, take(build_train_loader(tree.cfg("SEED", 4)), 6))


def test_the_number_of_workers_changes_nothing(tree):
    cfg = tree.cfg()
    expected = take(build_train_loader(cfg), 4)
    assert same(expected, take(build_train_loader(tree.cfg("DATALOADER.NUM_WORKERS", 2)), 4))


def test_loading_leaves_the_trainings_generators_alone(tree):
    for workers in (0, 1):
        loader = build_unlabeled_loader(tree.cfg("DATALOADER.NUM_WORKERS", workers))
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        take(loader, 2)
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert after == expected


def test_seeding_is_undone_after_an_error():
    torch.manual_seed(0)
    expected = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(5):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), expected)


def test_ranks_share_the_counters_of_a_step():
    total, world = 6, 3
    for step in range(3):
        counters = []
        for rank in range(world):
            counters += take(CountSampler(step * total, rank, world), total // world)
        assert sorted(counters) == list(range(step * total, (step + 1) * total))


def test_two_ranks_see_together_what_one_sees(tree, monkeypatch):
    expected = take(build_unlabeled_loader(tree.cfg()), 3)
    halves = []
    for rank in range(2):
        monkeypatch.setattr("wpl_d2.data.loader.comm.get_world_size", lambda: 2)
        monkeypatch.setattr("wpl_d2.data.loader.comm.get_rank", lambda rank=rank: rank)
        halves.append(take(build_unlabeled_loader(tree.cfg()), 3))
    assert all(len(batch) == 1 for half in halves for batch in half)
    assert same(expected, [a + b for a, b in zip(*halves, strict=True)])


def test_a_batch_must_divide_among_the_processes(tree, monkeypatch):
    monkeypatch.setattr("wpl_d2.data.loader.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"SOLVER\.IMS_PER_BATCH: 2 images do not divide among 3 proc.*; take"):
        build_labeled_loader(tree.cfg())


def test_every_epoch_is_a_permutation_even_if_shorter_than_a_batch(tree):
    (batch,) = take(build_labeled_loader(tree.cfg("SOLVER.IMS_PER_BATCH", 7)), 1)
    names = [sample["image_id"] for sample in batch]
    everything = {"labeled0", "labeled1", "labeled2"}
    assert set(names[:3]) == set(names[3:6]) == everything
    views = [sample["image"] for sample in batch if sample["image_id"] == names[6]]
    assert not torch.equal(views[0], views[1])


def test_the_two_streams_differ(tree):
    cfg = tree.cfg("DATASETS.UNLABELED", f"('{tree.name}_labeled',)")
    batch = next(build_train_loader(cfg))
    assert not torch.equal(batch["labeled"][0]["image"], batch["unlabeled"][0]["image"])


def test_without_unlabeled_lists_there_are_no_unlabeled_samples(tree):
    cfg = tree.cfg("DATASETS.UNLABELED", "()")
    assert [len(batch["unlabeled"]) for batch in take(build_train_loader(cfg), 2)] == [0, 0]


def test_masks_of_unlabeled_images_are_never_opened(tree, monkeypatch):
    for i in range(5):
        tree.mask(f"unlabeled{i}").write_text("not to be read")
    opened = []
    open_image = Image.open

    def record(file, *arguments):
        opened.append(str(getattr(file, "name", file)))
        return open_image(file, *arguments)

    monkeypatch.setattr(Image, "open", record)
    loader = build_train_loader(tree.cfg("MODEL.DETECTOR.MODE", "shared"))
    for batch in itertools.islice(loader, 6):
        assert all(not any("sem_seg" in key for key in sample) for sample in batch["unlabeled"])
    assert opened
    assert not [name for name in opened if "masks/unlabeled" in name]


def test_an_unreadable_unlabeled_image_is_replaced_and_told_once(tree, caplog):
    tree.image("unlabeled2").write_bytes(b"broken")
    cfg = tree.cfg()
    dataset = unlabeled_dataset(cfg)
    samples = [dataset[i] for i in range(15)]
    assert {sample["image_id"] for sample in samples} == {f"unlabeled{i}" for i in (0, 1, 3, 4)}
    assert int(dataset.unreadable.sum()) == 1
    assert caplog.text.count("unlabeled2.png: cannot be read") == 1
    # The replacement too is a function of the counter.
    later = unlabeled_dataset(cfg)
    assert same(samples[7:], [later[i] for i in range(7, 15)])
    batches = take(build_unlabeled_loader(tree.cfg("DATALOADER.NUM_WORKERS", 2)), 7)
    assert same(samples[:14], list(itertools.chain(*batches)))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_images_stop_the_training(tree, workers):
    for i in (1, 2):
        tree.image(f"unlabeled{i}").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"^unlabeled stream: 2 of 5 images cannot be read, such as .*; restore .*$"):
        take(build_unlabeled_loader(tree.cfg("DATALOADER.NUM_WORKERS", workers)), 10)


@pytest.mark.parametrize(("total", "tolerated"), [(1, 0), (2, 1), (300, 3)])
def test_the_limit_is_one_in_a_hundred(tree, total, tolerated):
    good, bad = {"file_name": str(tree.image("val0"))}, {"file_name": "missing.png"}
    mapper = unlabeled_dataset(tree.cfg()).mapper
    records = [bad] * tolerated + [good] * (total - tolerated)
    dataset = CountedDataset(records, mapper, 0, "s", skip=True)
    for counter in range(total):
        dataset[counter]
    records = [bad] * (tolerated + 1) + [good] * (total - tolerated - 1)
    worse = CountedDataset(records, mapper, 0, "s", skip=True)
    with pytest.raises(InputError, match=f"{tolerated + 1} of {total} images"):
        for counter in range(total):
            worse[counter]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_labeled_file_is_an_error_without_a_traceback(tree, workers):
    tree.image("labeled1").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"^\S*labeled1\.png: cannot be read .*; restore .*$"):
        take(build_labeled_loader(tree.cfg("DATALOADER.NUM_WORKERS", workers)), 2)


def test_a_labeled_image_needs_a_mask(tree):
    tree.mask("labeled1").unlink()
    with pytest.raises(
        ValueError, match=r"labeled1\.png: is in DATASETS.TRAIN, but has no .*masks/labeled1\.png; add it"
    ):
        build_labeled_loader(tree.cfg())


def test_an_empty_list_is_an_error(tree):
    (tree.root / "unlabeled.txt").write_text("\n")
    with pytest.raises(ValueError, match="unlabeled stream: has no images"):
        build_unlabeled_loader(tree.cfg())
    with pytest.raises(InputError, match="unlabeled' is empty; name one"):
        EvalDataset(tree.cfg(), name=f"{tree.name}_unlabeled")


def test_evaluation_sees_every_image_once(tree):
    cfg = tree.cfg()
    batches = list(EvalDataset(cfg, name=f"{tree.name}_val").loader())
    assert [len(batch) for batch in batches] == [1, 1]
    assert [batch[0]["image_id"] for batch in batches] == ["val0", "val1"]
    assert batches[0][0]["sem_seg_file_name"] == str(tree.mask("val0"))
    assert batches[0][0]["image"].shape == (3, 50, 60)
