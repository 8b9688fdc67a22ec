"""The published figures are consistent, and what runs measured is read rightly and shown beside them."""

import csv
import io
import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from wpl_tables.recipes import Recipe
from wpl_tables.report import table_text, tables_csv
from wpl_tables.results import measure
from wpl_tables.tables import find_cells, load_tables, select_tables

from wpl_d2.utils.errors import InputError

CELLS = {cell.name: cell for table in load_tables().values() for cell in table.cells}


def test_figures_of_one_run_and_metric_agree_across_tables():
    by_source = {}
    for cell in CELLS.values():
        if cell.run and cell.published is not None:
            by_source.setdefault((cell.run, cell.metric), set()).add(cell.published)
    assert [source for source, values in by_source.items() if len(values) > 1] == []
    # Alpha, box score and bank size each have a row that is the first table's.
    names = {cell.name for cell in find_cells("voc_92/r101/unimatch_wpl")}
    assert {
        "table1/voc_92/r101/unimatch_wpl",
        "supp_table2/voc_92/alpha_0.4",
        "supp_table3/voc_92/box_score_0.85",
        "supp_table4/voc_92/bank_size_256",
        "table4/unimatch_wpl/person",
    } <= names


@pytest.mark.parametrize("row", ["unimatch", "unimatch_wpl"])
def test_the_classes_average_to_the_first_tables_figure(row):
    values = [cell.published for name, cell in CELLS.items() if name.startswith(f"table4/{row}/")]
    assert len(values) == 21
    assert np.mean(values) == pytest.approx(CELLS[f"table1/voc_92/r101/{row}"].published, abs=0.05)


def test_every_weighted_figure_is_above_its_hosts():
    pairs = [
        (CELLS[name.replace("_wpl", "")], cell)
        for name, cell in CELLS.items()
        if "_wpl" in name and not name.startswith("supp_table1")
    ]
    # 4 hosts on 8 splits of VOC and 4 of Cityscapes, 2 depths; 3 + 21 + 4 + 5 more.
    assert len(pairs) == 4 * 12 * 2 + 33
    assert [ours.name for host, ours in pairs if ours.published <= host.published] == []


def test_what_has_a_preset_is_a_run_and_all_else_says_why_not():
    for cell in CELLS.values():
        assert bool(cell.run) != bool(cell.why_not)
    assert CELLS["beyond_voc/voc_92/r101/rankmatch"].why_not == "there is no configs/voc/rankmatch.yaml"
    assert CELLS["beyond_voc/voc_92/r101/unimatch_blender"].run == "voc_92/r101/unimatch_blender"


def test_blender_figures_and_runs_are_of_the_same_lists():
    assert CELLS["table1/voc_u2pl_1_16/r101/cps"].run == "voc_1_16/r101/cps"
    assert CELLS["table1/voc_u2pl_1_16/r101/unimatch"].run == "voc_u2pl_1_16/r101/unimatch"
    for lists in ("voc_1_16", "voc_u2pl_1_16"):
        assert Recipe.from_name(f"{lists}/r101/unimatch").config.stem == "unimatch_blender"
    assert "of CPS's lists" in CELLS["table1/voc_u2pl_1_8/r101/daw"].note


def write_metrics(folder, evaluations, finished=True):
    """A metrics.json as trainings write it, of evaluations after a step: mIoU, IoU of two classes."""
    folder.mkdir(parents=True)
    rows = []
    for step, *values in evaluations:
        rows.append({"eta_seconds": 3.5, "iteration": step - 1, "loss_sem_seg": 0.3, "total_loss": 0.4})
        names = ("sem_seg/mIoU", "sem_seg/IoU-person", "sem_seg/IoU-sofa")
        rows.append({"iteration": step, **dict(zip(names, values, strict=True))})
    if finished:
        rows[-2]["eta_seconds"] = 0.0
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture
def measured(tmp_path):
    """Two seeds of one run and a third that was stopped; one judged training."""
    run = tmp_path / "voc_92" / "r101" / "unimatch_wpl"
    nan = float("nan")
    write_metrics(run / "seed_0", [(10, 70.0, 90.0, nan), (20, 76.0, 80.0, nan), (30, 74.0, 81.0, nan)])
    write_metrics(run / "seed_1", [(10, 78.0, 84.0, nan), (20, 75.0, 83.0, nan)])
    write_metrics(run / "seed_2", [(10, 99.0, 99.0, 99.0)], finished=False)
    judged = tmp_path / "voc_92" / "r101" / "unimatch_judged" / "seed_0"
    judged.mkdir(parents=True)
    figures = {"boxes": 7, "box": 60.5, "pixel": 70.5, "inside": 80.5, "outside": 50.5, "covered": 40.0}
    nothing = dict.fromkeys(figures, nan)
    scores = {"0.8": {"tv/monitor": nothing}, "0.85": {"tv/monitor": figures, "sofa": nothing}}
    (run / "seed_0_before").mkdir()  # somebody's copy
    (judged / "judged.json").write_text(json.dumps({"pseudo_labels": {}, "boxes": scores}))
    return tmp_path


def test_best_is_by_miou_for_classes_too_and_unfinished_runs_count_nowhere(measured):
    whole = measure(CELLS["table1/voc_92/r101/unimatch_wpl"], measured)
    assert (whole.best, whole.last) == ({0: 76.0, 1: 78.0}, {0: 74.0, 1: 75.0})
    assert whole.unfinished == [measured / "voc_92" / "r101" / "unimatch_wpl" / "seed_2"]
    person = measure(CELLS["table4/unimatch_wpl/person"], measured)
    assert (person.best, person.last) == ({0: 80.0, 1: 84.0}, {0: 81.0, 1: 83.0})
    assert measure(CELLS["table4/unimatch_wpl/sofa"], measured).last == {}
    assert measure(CELLS["table1/voc_92/r101/unimatch"], measured).last == {}
    assert measure(CELLS["beyond_voc/voc_92/r101/rankmatch"], measured).last == {}


def test_judged_figures_are_those_of_the_papers_score(measured):
    values = {row: measure(CELLS[f"supp_table1/{row}/tv_monitor"], measured).last for row in ("box", "inside")}
    assert values == {"box": {0: 60.5}, "inside": {0: 80.5}}
    assert measure(CELLS["supp_table1/box/sofa"], measured).last == {}


def test_a_table_shows_measured_beside_published(measured):
    text = table_text(*select_tables("table1"), measured)
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    start = next(i for i, line in enumerate(lines) if line[1:3] == ["r101/unimatch_wpl", "published"])
    assert lines[start][3] == "76.7"
    assert lines[start + 1][2:5] == ["best", "77.00 ± 1.41 (2)", ""]
    assert lines[start + 2][2:5] == ["last", "74.50 ± 0.71 (2)", ""]
    assert "unimatch_wpl/seed_2: not finished, left out" in text
    assert "- r101/ael: evaluated on centre crops of 513" in text
    text = table_text(*select_tables("beyond_voc"), measured)
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    other = next(i for i, line in enumerate(lines) if line[1:3] == ["r101/rankmatch", "published"])
    assert lines[other][3:8] == ["75.5", "77.6", "79.8", "80.7", "82.2"]
    assert lines[other + 1][1] == "r101/beyond_pixels"
    assert "- r101/rankmatch: crop 513" in text


def test_a_csv_has_a_row_for_each_figure(measured):
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(tables_csv(select_tables(None), measured)))}
    assert rows.keys() == CELLS.keys()
    ours = rows["supp_table2/voc_92/alpha_0.4"]
    assert (ours["published"], ours["best_mean"], ours["best_spread"], ours["best_seeds"]) == (
        *("76.7", "77.0000", "1.4142", "2"),
    )
    assert rows["supp_table6/coco_1_512/unimatch"]["last_mean"] == ""


def test_a_damaged_file_is_named(tmp_path):
    folder = tmp_path / "voc_92" / "r101" / "unimatch" / "seed_0"
    write_metrics(folder, [(10, 50.0, 50.0, 50.0)])
    with (folder / "metrics.json").open("a") as file:
        file.write('{"iteration": 2')
    with pytest.raises(InputError, match=r"metrics\.json: is damaged"):
        measure(CELLS["table1/voc_92/r101/unimatch"], tmp_path)


def test_a_note_is_of_a_row_or_of_one_of_its_figures(measured, paper_tables):
    noted = {name for name, cell in CELLS.items() if cell.note.startswith("voc_92 is published with a forward more")}
    assert noted == {"table1/voc_92/r50/augseg", "table1/voc_92/r50/augseg_wpl"}
    text = table_text(*select_tables("table1"), measured)
    assert text.count("- r50/augseg: voc_92 is published with a forward more") == 1
    assert text.count("- r50/pseudoseg: all but equal to PC2Seg's") == 1
    assert "which this project leaves out)" in paper_tables("show", "table1/voc_92/r50/augseg")


def test_names_are_listed_and_shown_with_their_commands(paper_tables):
    listed = [line.split(maxsplit=2) for line in paper_tables("list").splitlines()[2:]]
    assert [line[0] for line in listed] == list(CELLS)
    assert [
        "beyond_voc/voc_92/r101/rankmatch",
        "75.5",
        "published only: there is no configs/voc/rankmatch.yaml",
    ] in listed
    assert ["table4/unimatch/tv_monitor", "66.3", "voc_92/r101/unimatch"] in listed
    shown = paper_tables("show", "table3/voc_92/mean_teacher_wpl", "--num-gpus", 4)
    assert shown.startswith("table3/voc_92/mean_teacher_wpl: 70.5 (")
    assert [Path(line.split()[0]).name for line in shown.splitlines()[-3:]] == [
        *("train_net.py", "cache_boxes.py", "train_net.py")
    ]
    assert shown.count("--num-gpus 4") == 3
    assert "train_net" not in paper_tables("show", "beyond_voc/voc_92/mit_b5/conformalsam")
    assert "configs/voc/allspark.yaml" in paper_tables("show", "beyond_voc/voc_92/mit_b5/allspark")


def test_commands_refuse_what_does_not_exist(paper_tables, tmp_path):
    with pytest.raises(InputError, match="did you mean table1/voc_92/r101/unimatch"):
        paper_tables("show", "table1/voc_92/r101/unimatc")
    with pytest.raises(InputError, match=r"published only \(there is no configs/voc/rankmatch.yaml"):
        paper_tables("run", "beyond_voc/voc_92/r101/rankmatch")
    with pytest.raises(InputError, match="did you mean table4"):
        paper_tables("sweep", "table44", "--output", tmp_path)
    with pytest.raises(InputError, match=r"model_final\.pth: is missing; first run\n.*configs/detector/voc\.yaml"):
        paper_tables("run", "voc_92/r101/unimatch_wpl", "--output", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        paper_tables("collect", tmp_path / "nothing")
    with pytest.raises(InputError, match="unknown ending"):
        paper_tables("collect", tmp_path, "--output", tmp_path / "table.txt")
    with pytest.raises(SystemExit):
        paper_tables("collect", tmp_path, "--", "SOLVER.MAX_ITER", 4)


def test_a_sweep_runs_all_of_a_table_and_goes_on_where_it_stopped(paper_tables, tmp_path, monkeypatch):
    called, failing = [], {"bank_size_64"}

    def run(command, check):
        words = dict(itertools.pairwise(command))
        called.append((Path(command[1]).name, words.get("WEIGHTING.BANK_SIZE"), "--resume" in command))
        folder = Path(words.get("OUTPUT_DIR") or Path(words["--output"]).parent)
        folder.mkdir(parents=True, exist_ok=True)
        if "train_net" in command[1]:
            (folder / "last_checkpoint").touch()
        if not any(word in str(folder) for word in failing):
            (folder / ("boxes.npz" if "cache_boxes" in command[1] else "model_final.pth")).touch()
            if "train_net" in command[1] and "detector" not in str(folder):
                assert command[-2:] == ["SOLVER.MAX_ITER", "2"]
                write_metrics(folder / "x", [(1, 50.0, 50.0, 50.0)])
                (folder / "x" / "metrics.json").rename(folder / "metrics.json")

    monkeypatch.setattr(subprocess, "run", run)
    sweep = "sweep", "supp_table4", "--output", tmp_path, "--seeds", 0, 1, "--", "SOLVER.MAX_ITER", 2
    with pytest.raises(InputError, match=r"unimatch_wpl_bank_size_64/seed_0/model_final\.pth: was not made"):
        paper_tables(*sweep)
    detector = [("train_net.py", None, False), ("cache_boxes.py", None, False)]
    assert called == [*detector, ("train_net.py", "32", False), ("train_net.py", "64", False)]
    called.clear()
    failing.clear()
    table = paper_tables(*sweep)
    sizes = ["128", None, "512"]  # 256 is the default
    assert called[0] == ("train_net.py", "64", True)
    assert called[1:] == [("train_net.py", size, False) for size in [*sizes, "32", "64", *sizes]]
    assert table.count("50.00 ± 0.00 (2)") == 10
    called.clear()
    paper_tables(*sweep)
    assert called == []
