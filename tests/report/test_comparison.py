import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_helpers import rows_of, write_rows

from wpl_d2.evaluation import ImageCounts
from wpl_d2.report import make_report
from wpl_d2.report.comparison import compare_runs, group_runs
from wpl_d2.report.run import Run


def run_of(folder, method, seed, miou, counts=None, labeled=("fields_labeled", None)):
    settings = {"FRAMEWORK.NAME": method, "SEED": seed, "OUTPUT_DIR": folder, "DATASETS.TRAIN": labeled[:1]}
    rows = [] if miou is None else [{"iteration": 9, "sem_seg/mIoU": miou, "sem_seg/IoU-sky": miou}]
    return Run(Path(folder), settings, "", rows, counts, {"labeled": {"images": labeled[1]}}, [], [])


def counts_of(right):
    counts = np.stack([right, np.full_like(right, 10), np.full_like(right, 10)], axis=1)[..., None]
    return ImageCounts([f"{index}.png" for index in range(len(right))], ["sky"], counts, counts[:, 0].sum(axis=0))


def test_differences_are_paired_over_the_seeds_that_both_have():
    runs = [run_of(f"out/wpl_s{seed}", "MeanTeacher", seed, value) for seed, value in ((0, 50), (1, 53), (2, 58))]
    runs += [run_of(f"out/base_s{seed}", "Supervised", seed, value) for seed, value in ((0, 48), (1, 50), (7, 10))]
    compared = compare_runs(runs)
    assert compared["baseline"] == "base"
    ours, base = compared["groups"]
    assert (ours["name"], ours["count"], base["difference"]) == ("wpl", 3, None)
    assert ours["mean"] == pytest.approx(161 / 3) and ours["difference"]["by_seed"] == {"0": 2, "1": 3}
    half = 12.7062 * math.sqrt(0.5) / math.sqrt(2)  # Student's t of one degree of freedom
    assert ours["difference"]["low"] == pytest.approx(2.5 - half, abs=1e-3)
    assert ours["words"] == "no difference to base can be told from chance of the seeds"
    assert ours["classes"] == {"sky": pytest.approx(161 / 3)}


@pytest.mark.parametrize(
    ("values", "words"), [((55, 60.1), "better than base, by more"), ((45, 49.9), "worse than base, by more")]
)
def test_a_difference_beyond_chance_is_said(values, words):
    runs = [run_of(f"out/wpl_s{seed}", "UniMatch", seed, value) for seed, value in enumerate(values)]
    runs += [run_of(f"out/base_s{seed}", "Supervised", seed, value) for seed, value in enumerate((50, 55))]
    assert compare_runs(runs)["headline"].startswith(f"wpl: {words}")


def test_one_seed_is_compared_over_images():
    right = np.random.default_rng(0).integers(2, 9, 60)
    ours = run_of("out/wpl", "MeanTeacher", 0, 60, counts_of(right + 1))
    base = run_of("out/base", "Supervised", 0, 50, counts_of(right))
    difference = compare_runs([base, ours])["groups"][1]["difference"]
    assert difference["over"] == "images" and 0 < difference["low"] < difference["high"]
    alone = run_of("out/wpl", "MeanTeacher", 0, 60)
    assert compare_runs([base, alone])["groups"][1]["words"].endswith("too little to say more")


def test_runs_that_differ_by_their_seed_alone_are_a_group():
    study = [
        run_of(f"study/{name}/{letter}", method, seed, 50)
        for name, method in (("plain", "MeanTeacher"), ("rank", "UniMatch"))
        for seed, letter in enumerate("ab")
    ]
    assert {name: len(group) for name, group in group_runs(study).items()} == {"plain": 2, "rank": 2}
    alike = [run_of("one/run", "MeanTeacher", 0, 50), run_of("two/run", "UniMatch", 0, 50)]
    assert list(group_runs(alike)) == ["one/run", "two/run"]


def test_other_draws_of_as_many_labeled_images_are_a_group_and_paired_by_draw():
    draws = [("half_labeled", 9), ("half_b_labeled", 9), ("whole_labeled", 18)]
    runs = [
        run_of(f"{method}/{number}", method, 0, value + number, labeled=draw)
        for method, value in (("Supervised", 50), ("MeanTeacher", 53))
        for number, draw in enumerate(draws)
    ]
    rows = compare_runs(runs)["groups"]
    assert [row["count"] for row in rows] == [2, 1, 2, 1]
    assert rows[2]["difference"]["by_seed"] == {"0, half_labeled": 3, "0, half_b_labeled": 3}


def test_runs_that_were_not_evaluated_are_shown_without_a_word_on_them():
    compared = compare_runs([run_of("out/base", "Supervised", 0, 50), run_of("out/new", "MeanTeacher", 0, None)])
    assert compared["headline"] == "base: nothing to compare it with"
    assert compared["groups"][1]["words"] == "no seed in common with base"


def test_trainings_are_compared_as_their_folders_say(runs, tmp_path):
    later = shutil.copytree(runs["teacher"], tmp_path / "teacher_s2", ignore=shutil.ignore_patterns("*.pth"))
    (later / "config.yaml").write_text((later / "config.yaml").read_text().replace("\nSEED: 1\n", "\nSEED: 2\n"))
    rows = rows_of(later)
    rows[-1]["sem_seg/mIoU"] += 2
    write_rows(later, rows)
    compared = make_report([runs["teacher"], later, runs["supervised"]])["comparison"]
    assert [(row["name"], row["count"]) for row in compared["groups"]] == [("teacher", 2), ("supervised", 1)]
    assert compared["baseline"] == "supervised"
    assert {chart["id"]: len(chart["series"]) for chart in compared["charts"]} == {"all_figure": 3, "all_loss": 3}
