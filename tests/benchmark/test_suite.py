import json
import time

import pytest
import torch
from helpers import SMALL

from wpl_d2.benchmark import device, suite
from wpl_d2.benchmark.step import first_batch
from wpl_d2.engine import trainer
from wpl_d2.utils.errors import InputError

TOY = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_resnet"),
    *("INPUT.CROP_SIZE", (65, 65), "SOLVER.IMS_PER_BATCH", 2, "SOLVER.UNLABELED_IMS_PER_BATCH", 2),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    sizes = {name: ((90, 70), *rest) for name, (_, *rest) in suite._DATA_SETS.items()}
    monkeypatch.setattr(suite, "_DATA_SETS", sizes)
    monkeypatch.setattr(suite, "_LOADED_SECONDS", 0.2)
    return suite.Suite(tmp_path / "out", TOY)


@pytest.mark.slow
def test_every_kind_of_part_leaves_its_row_and_the_table(toy):
    hosts = ["no sync, augseg", "no sync, ael"]
    wanted = ["base", *hosts, "loader, photos", "as on the CPU", "resume", "contiguous", "loader, street scenes"]
    toy.run(300, wanted)
    rows = [json.loads(line) for line in (toy.folder / "rows.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == wanted and not [row for row in rows if "error" in row]
    found = {row["name"]: row for row in rows}
    assert all(found[name]["passed"] for name in [*hosts, "as on the CPU", "resume"])
    assert found["base"]["published_step_s"] > 0 and "published_step_s" not in found["contiguous"]
    assert found["loader, photos"]["eaten_images_per_s"] == pytest.approx(4 / found["base"]["weighted_step_s"], 0.01)
    table = (toy.folder / "table.md").read_text()
    assert "| base |" in table and "- resume: repeat_difference 0.0" in table
    assert not toy.scratch.exists()


def test_parts_are_one_factor_from_the_base(toy):
    assert toy._crop(25 / 16) == (97, 97)
    assert suite.Suite(toy.folder)._crop(25 / 16) == (801, 801)
    assert next(iter(toy.parts())) == "base"


def test_what_cannot_be_measured_is_said_before(toy):
    with pytest.raises(InputError, match=r"--only: 'bass' is not known; did you mean base"):
        toy.run(60, ["bass"])
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"MODEL\.DEVICE: 'cuda' asked for, but there are 0 GPUs"):
            suite.Suite(toy.folder).run(60)
    assert not toy.folder.exists()


def test_a_part_that_fails_or_takes_too_long_is_a_row(toy, monkeypatch):
    parts = {"wrong": lambda: 1 / 0, "slow": lambda: time.sleep(60), "fine": lambda: {"figure": 1.0}}
    monkeypatch.setattr(toy, "parts", lambda: parts)
    monkeypatch.setattr(suite, "_CELL_SECONDS", 0.2)
    toy.run(60)
    assert toy.rows[0]["error"] == "ZeroDivisionError: division by zero"
    assert toy.rows[1]["error"] == "not done after 0 s"
    assert toy.rows[2]["figure"] == 1
    toy.rows.clear()
    toy.run(0.5)
    assert toy.rows == []


EXACT = [*SMALL, "FRAMEWORK.THRESHOLD", 0.0, "WEIGHTING.LABELED_CONF", 0.0]


def test_another_step_than_the_cpus_is_found(tree, monkeypatch):
    cfg = tree.cfg(*EXACT)
    batch = first_batch(cfg)
    found = device.compare_with_cpu(cfg, batch)
    assert 0 < found.pop("rounding_difference") < 0.01
    assert set(found.values()) == {0.0}
    build, built = device.build_optimizer, []

    def build_other(cfg, student):
        built.append(build(cfg, student))
        for group in built[-1].param_groups:
            group["lr"] *= 1 + 0.01 * (len(built) - 1)
        return built[-1]

    monkeypatch.setattr(device, "build_optimizer", build_other)
    found = device.compare_with_cpu(cfg, batch)
    assert found["step_difference"] == pytest.approx(0.01, rel=0.1)


@pytest.mark.slow
def test_a_training_that_is_not_repeatable_is_found(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "seed_step", lambda *args: torch.seed())
    found = device.compare_resumed(tree.cfg(*EXACT), tmp_path / "runs")
    assert found["repeat_difference"] > 0 and found["resume_difference"] > 0
