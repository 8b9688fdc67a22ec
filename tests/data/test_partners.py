import itertools
from collections import deque

import pytest
import torch
from test_streams import same, take

from wpl_d2.data import UnlabeledMapper, build_train_loader
from wpl_d2.data.loader import build_partner_loader, unlabeled_records

CHOSEN = [[4, 0], [2, 2], [], [1, 3], [0, 0]]


def indices(start=0):
    return deque([list(step) for step in CHOSEN[start:]])


def partners(cfg, start=0, count=4):
    return take(build_partner_loader(cfg, indices(start), start), count)


@pytest.mark.parametrize("workers", [0, 2])
def test_partners_come_in_their_steps(tree, workers):
    cfg = tree.cfg("DATALOADER.NUM_WORKERS", workers)
    batches = take(build_train_loader(cfg, 0, indices()), 4)
    assert [[item["index"] for item in batch["partners"]] for batch in batches] == CHOSEN[:4]
    for item in itertools.chain(*(batch["partners"] for batch in batches)):
        assert item["image_id"] == f"unlabeled{item['index']}"
        assert item["valid"].shape == (40, 48) and "sem_seg" not in item
    # Twice the same image, but not the same view.
    first, second = batches[1]["partners"]
    assert not torch.equal(first["image"], second["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_another_source_feeds_all_unlabeled_streams_with_the_same_views(tree, workers):
    """A mapper that adds to the samples changes nothing else of them."""

    class Marked(UnlabeledMapper):
        def sample(self, dataset_dict, image, view):
            moved = view.transform.apply_segmentation(image[..., 0])
            return super().sample(dataset_dict, image, view) | {"red": torch.from_numpy(moved), **dataset_dict["more"]}

    size = ("INPUT.SCALE_RANGE", (1.0, 1.0), "INPUT.CROP_SIZE", (52, 50))
    cfg = tree.cfg("DATALOADER.NUM_WORKERS", workers, *size)
    records = [{**record, "more": {"of": record["image_id"]}} for record in unlabeled_records(cfg)]
    ours = take(build_train_loader(cfg, 1, indices(1), (records, Marked(cfg))), 3)
    plain = take(build_train_loader(cfg, 1, indices(1)), 3)
    assert same([batch["labeled"] for batch in ours], [batch["labeled"] for batch in plain])
    for stream in ("unlabeled", "partners"):
        for mine, theirs in zip(*(itertools.chain(*(b[stream] for b in run)) for run in (ours, plain)), strict=True):
            assert mine.pop("of") == mine["image_id"]
            red = mine.pop("red")
            assert same(mine, theirs)
            assert torch.equal(red[mine["valid"]], mine["image"][0][mine["valid"]])
            assert (red[~mine["valid"]] == 255).all()


def test_the_number_of_workers_changes_nothing(tree):
    assert same(partners(tree.cfg()), partners(tree.cfg("DATALOADER.NUM_WORKERS", 2)))


def test_starting_later_gives_what_would_have_come(tree):
    assert same(partners(tree.cfg())[1:], partners(tree.cfg(), start=1, count=3))
    assert not same(partners(tree.cfg()), partners(tree.cfg("SEED", 4)))


def test_a_worker_is_at_most_one_step_ahead(tree):
    # The indices for the step after the next one are not there yet when a step's images are fetched.
    queue = deque([[0], [1]])
    loader = iter(build_partner_loader(tree.cfg("DATALOADER.NUM_WORKERS", 1), queue))
    for step in range(4):
        (item,) = next(loader)
        assert item["index"] == step
        queue.append([step + 2])


def test_two_ranks_see_together_what_one_sees(tree, monkeypatch):
    expected = partners(tree.cfg())
    monkeypatch.setattr("wpl_d2.data.loader.comm.get_world_size", lambda: 2)
    halves = []
    for rank in range(2):
        monkeypatch.setattr("wpl_d2.data.loader.comm.get_rank", lambda rank=rank: rank)
        own = deque([step[rank : rank + 1] for step in CHOSEN])
        halves.append(take(build_partner_loader(tree.cfg(), own), 4))
    assert same(expected, [a + b for a, b in zip(*halves, strict=True)])


def test_they_are_other_views_than_the_unlabeled_streams(tree):
    cfg = tree.cfg()
    (plain,) = take(build_train_loader(cfg), 1)
    assert plain["partners"] == []
    places = [item["index"] for item in plain["unlabeled"]]
    (batch,) = take(build_train_loader(cfg, 0, deque([places, places])), 1)
    for own, partner in zip(batch["unlabeled"], batch["partners"], strict=True):
        assert own["image_id"] == partner["image_id"] == f"unlabeled{own['index']}"
        assert not torch.equal(own["image"], partner["image"])


def test_the_index_is_that_of_the_image_in_place_of_an_unreadable_one(tree):
    tree.image("unlabeled2").write_bytes(b"broken")
    for item in partners(tree.cfg(), count=2)[1]:
        assert item["index"] != 2 and item["image_id"] == f"unlabeled{item['index']}"


def test_what_one_stream_could_not_read_counts_for_the_other_too(tree, caplog):
    tree.image("unlabeled2").write_bytes(b"broken")
    for batch in take(build_train_loader(tree.cfg(), 0, deque([[2, 0]] * 9)), 8):
        assert all(item["index"] != 2 for item in batch["unlabeled"] + batch["partners"])
    assert caplog.text.count("unlabeled2.png: cannot be read") == 1
