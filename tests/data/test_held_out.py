"""Which labeled images are held out for the weight `calibrated`, and when they come."""

import itertools

import pytest
from test_streams import same, take

from wpl_d2.data import build_train_loader
from wpl_d2.data.held_out import FitSampler, HeldOut, held_out_images
from wpl_d2.data.loader import labeled_records
from wpl_d2.utils.errors import InputError

# Two fits, after the steps 2 and 4; the image held out trains from step 8 on.
OPTS = [
    *("WEIGHTING.ENABLED", True, "WEIGHTING.KIND", ("rank", "calibrated"), "WEIGHTING.CALIBRATED.PERIOD", 2),
    *("FRAMEWORK.BURN_IN", 1, "SOLVER.MAX_ITER", 7),
]


def names(items):
    return [item["image_id"] for item in items]


@pytest.mark.parametrize("workers", [0, 2])
def test_they_train_nothing_but_the_fits_before_the_last_fifth(tree, workers):
    cfg = tree.cfg(*OPTS, "DATALOADER.NUM_WORKERS", workers)
    chosen = held_out_images(cfg, labeled_records(cfg))
    assert (list(chosen.fits), chosen.end, len(chosen.indices)) == ([2, 4], 5, 1)
    (out,) = (f"labeled{index}" for index in chosen.indices)
    batches = take(build_train_loader(cfg), 11)
    early, late = (list(itertools.chain(*(names(b["labeled"]) for b in part))) for part in (batches[:5], batches[5:]))
    assert {name: early.count(name) for name in set(early)} == dict.fromkeys(
        {*map("labeled{}".format, range(3))} - {out}, 5
    )
    assert {name: late.count(name) for name in set(late)} == {f"labeled{index}": 4 for index in range(3)}
    assert [names(batch["held_out"]) for batch in batches] == [[], [], [out], [], [out], *[[]] * 6]
    first, second = batches[2]["held_out"] + batches[4]["held_out"]
    assert first["sem_seg"].shape == (40, 48) and not same(first, second)


def test_starting_later_gives_what_would_have_come(tree):
    cfg = tree.cfg(*OPTS)
    straight = take(build_train_loader(cfg), 7)
    for start in (3, 6):
        assert same(straight[start:], take(build_train_loader(cfg, start), 7 - start))


def test_nothing_is_held_out_without_the_weight(tree):
    plain, other = tree.cfg(), tree.cfg(*OPTS, "WEIGHTING.KIND", ("rank",))
    batches, others = (take(build_train_loader(cfg), 4) for cfg in (plain, other))
    assert same(batches, others) and not any(batch["held_out"] for batch in batches)


def test_the_choice_hangs_on_seed_and_names_alone(tree):
    cfg = tree.cfg(*OPTS)
    records = [{"image_id": f"drive/{number}", "file_name": f"/here/{number}.png"} for number in range(55)]

    def choice(cfg, records):
        return {records[index]["image_id"] for index in held_out_images(cfg, records).indices}

    chosen = choice(cfg, records)
    assert len(chosen) == 11
    assert choice(cfg, [{**record, "file_name": "/there"} for record in reversed(records)]) == chosen
    assert choice(tree.cfg(*OPTS, "SEED", 4), records) != chosen
    assert len(choice(cfg, [*records, {"image_id": "new", "file_name": "new"}]) & chosen) >= 10


def test_processes_share_a_fit_and_all_give_as_many_images():
    fits, many = range(2, 9, 2), HeldOut(tuple(range(40)), range(0), 0)
    alone = take(FitSampler(fits, many.images_per_process(1), 0), 10)
    assert [len(step) for step in alone] == [0, 0, 16, 0, 16, 0, 16, 0, 16, 0]
    both = [take(FitSampler(fits, many.images_per_process(2), 0, rank, 2), 10) for rank in range(2)]
    assert [first + second for first, second in zip(*both, strict=True)] == alone
    assert len(set(itertools.chain(*alone))) == 64  # views of other images in each fit
    few = HeldOut((0, 1, 2), range(0), 0)
    assert [few.images_per_process(2), few.images_per_process(2, 2), few.images_per_process(1, 3)] == [2, 2, 3]


def test_nothing_is_pasted_from_them(tree):
    cfg = tree.cfg(*OPTS, "INPUT.PASTE.PROB", 1.0, "SOLVER.MAX_ITER", 40)
    (out,) = held_out_images(cfg, labeled_records(cfg)).indices
    pasted = {item["paste"]["image_id"] for batch in take(build_train_loader(cfg), 12) for item in batch["labeled"]}
    assert pasted == {f"labeled{index}" for index in range(3)} - {f"labeled{out}"}


def test_too_few_images_or_steps_are_named(tree):
    cfg = tree.cfg(*OPTS)
    with pytest.raises(InputError, match=r"WEIGHTING\.KIND: calibrated holds labeled images out .* has 1"):
        held_out_images(cfg, labeled_records(cfg)[:1])
    with pytest.raises(InputError, match=r"CALIBRATED\.PERIOD: no multiple of 100 lies between the burn-in and step 5"):
        held_out_images(tree.cfg(*OPTS, "WEIGHTING.CALIBRATED.PERIOD", 100), labeled_records(cfg))
