"""The report says what the runs gave, and no more than they show."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from study_helpers import JUDGE, make_result, make_study
from wpl_study.answer import answer
from wpl_study.pictures import draw_pictures
from wpl_study.report import study_text
from wpl_study.runs import judged_file
from wpl_study.table import Table

from wpl_d2.evaluation.statistics import CONFIDENCES

WEIGHTED = {"WEIGHTING.ENABLED": "True"}
ORACLE = {"FRAMEWORK.NAME": "OracleWeightsMeanTeacher"}
ROWS = {
    "supervised": ({"FRAMEWORK.NAME": "Supervised"}, "plain"),
    "plain": ({}, "plain"),
    "good": (WEIGHTED, "plain"),
    "bad": ({"PSEUDO_LABEL.REFINE": "tta"}, "plain"),
    "never": (WEIGHTED, "plain"),
    "oracle_weights": (ORACLE, "plain"),
    "oracle_mended": (ORACLE | {"PSEUDO_LABEL.REFINE": "tta"}, "plain"),
    "method": ({"WEIGHTING.NORM": "weight_sum"}, "plain"),
}
DEV = {
    "supervised": (44.0, 45.0, 46.0),
    "plain": (47.0, 45.5, 49.0),
    "good": (49.0, 47.0, 51.5),
    "bad": (47.5, 44.0, None),
    "oracle_weights": (55.0, 53.0, 56.0),
    "oracle_mended": (56.0, 55.0, 58.0),
    "method": (52.0, 51.0, 53.0),
}


def table_of(tmp_path, scores=DEV, rows=ROWS, **parts):
    study = make_study(rows, **parts)
    results = {}
    for row, values in scores.items():
        for draw, value in zip(study.draws, values, strict=True):
            if value is not None:
                fields = {"dev_student": value - 1, "val_student": value - 2}
                if row != "supervised":
                    fields |= {"dev_teacher": value, "val_teacher": value - 3}
                results[row, draw] = make_result(row, draw, **fields)
    return Table(study, results, tmp_path)


def text_of(table, pictures=()):
    return study_text(table, dict(pictures), Path("studies/fields.yaml"))


def cells(text, row, part=""):
    """The cells of a row's lines in the part of a report that begins with a title."""
    body = text.split(part, 1)[1] if part else text
    return [
        [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in body.splitlines()
        if re.match(rf"\| {row} +\|", line)
    ]


def write_judged(table, row, draw, step, shift=0.0, scores=("confidence", "rank")):
    names = ("coverage-confident", "accuracy-confident", "coverage-weighted", "accuracy-weighted", "calibration-error")
    figures = {}
    for number, part in enumerate(("", "-all objects")):
        figures |= {f"{name}{part}": 10.0 * (i + 1) + number + shift for i, name in enumerate(names)}
        for low in CONFIDENCES:
            figures[f"calibration-confidence{part}@{low:g}"] = 100 * low
            figures[f"calibration-accuracy{part}@{low:g}"] = 100 * low**2 if low else float("nan")
    for score in scores:
        for i, scope in enumerate(("pixel", "sure", "sure-all objects")):
            figures[f"auroc-{score}-{scope}"] = 0.9 - 0.1 * i + shift / 100
    file = judged_file(table.root / row / draw, step, JUDGE.images)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pseudo_labels": figures, "boxes": {}}))


def test_means_spreads_and_paired_t_are_those_of_the_draws(tmp_path):
    text = text_of(table_of(tmp_path))
    good, plain = np.array(DEV["good"]), np.array(DEV["plain"])
    means, by_draw = cells(text, "good")
    assert means[0] == f"{good.mean():.2f} ± {good.std(ddof=1):.2f} (3)"
    assert means[1] == f"{good.mean() - 1:.2f} ± {good.std(ddof=1):.2f} (3)"
    difference = good - plain
    assert means[2] == f"+{difference.mean():.2f} ± {difference.std(ddof=1):.2f} (3)"
    assert means[3] == f"{stats.ttest_rel(good, plain).statistic:.1f}"
    assert means[4].startswith(f"{good.mean() - 3:.2f}") and means[8] == "0.500"
    assert by_draw == ["plain", "49.00 (+2.00)", "47.00 (+1.50)", "51.50 (+2.50)"]
    # Its student stands for a model without a teacher.
    assert cells(text, "supervised")[0][:3] == ["", "44.00 ± 1.00 (3)", "-3.17 ± 1.44 (3)"]
    assert cells(text, "bad")[0][2] == "-0.50 ± 1.41 (2)"
    assert cells(text, "bad")[1] == ["plain", "47.50 (+0.50)", "44.00 (-1.50)", "not run"]
    assert cells(text, "plain")[0][2:4] == ["", ""] and cells(text, "plain")[1][0] == ""
    assert cells(text, "never")[0][0] == "not run"
    assert "20 of 24 runs are finished" in text
    assert "Pseudo-labels" not in text  # the study does not ask for them


def test_the_answer_is_the_highest_mean_of_weights_and_labels_that_are_finished_and_no_oracle(tmp_path):
    # Keys of weights that are off change nothing.
    text = answer(table_of(tmp_path))
    assert "finished: 1. `good` has the highest mean on `camvid_dev`, 49.17 ± 2.25 (3); +2.00 ± 0.50 (3)" in text
    assert "`oracle_weights`, which is told the truth, +7.50" in text
    assert "`bad`" not in text


def test_the_more_are_tried_the_more_is_asked_of_the_best(tmp_path):
    one = {name: ROWS[name] for name in ("plain", "good")}
    scores = {"plain": DEV["plain"], "good": DEV["good"]}
    t = stats.ttest_rel(DEV["good"], DEV["plain"]).statistic
    assert stats.t.isf(0.025, 2) < t < stats.t.isf(0.025 / 4, 2)
    alone = answer(table_of(tmp_path, scores, one))
    assert "**That is more than chance gives**: the best of 1 on 3 draws needs t above 4.3" in alone
    more = one | {f"other{i}": (WEIGHTED, "plain") for i in range(3)}
    among = answer(table_of(tmp_path, scores | {f"other{i}": DEV["plain"] for i in range(3)}, more))
    needed = f"{stats.t.isf(0.025 / 4, 2):.1f}"
    assert f"**Chance could give that**: the best of 4 on 3 draws needs t above {needed}" in among
    assert "one row on 5 draws needs 2.8" in among


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({}, "No weight, and what it is compared with, is finished on all draws"),
        ({"good": DEV["good"]}, "No weight, and what"),
        ({"plain": DEV["plain"], "good": (50.0, None, None)}, "No weight, and what"),
        ({"plain": DEV["plain"], "good": tuple(v + 1 for v in DEV["plain"])}, "**Chance could give that**"),
        (
            {"plain": DEV["plain"], "good": tuple(v - 1 for v in DEV["plain"])},
            "-1.00 ± 0.00 (3) to `plain`. **It is not",
        ),
    ],
)
def test_nothing_is_said_that_the_runs_do_not_show(tmp_path, scores, said):
    rows = {name: ROWS[name] for name in ("plain", "good")}
    text = answer(table_of(tmp_path, scores, rows))
    assert said in text and "more than chance" not in text


def test_one_draw_says_nothing_of_the_next(tmp_path):
    rows = {name: ROWS[name] for name in ("plain", "good")}
    scores = {"plain": (47.0,), "good": (55.0,)}
    assert "One draw says nothing about the next" in answer(table_of(tmp_path, scores, rows, draws=("a",)))


def test_a_question_compares_its_rows_draw_by_draw(tmp_path):
    rows = ("good", "plain", "bad", "never")
    text = text_of(table_of(tmp_path, questions={"Is good best?": rows, "And never?": ("never", "good")}))
    good, plain = np.array(DEV["good"]), np.array(DEV["plain"])
    t = stats.ttest_rel(good, plain).statistic
    assert "## Is good best?\n\nOn `camvid_dev`: `good` 49.17 ± 2.25 (3), `plain` 47.17" in text
    assert "`bad` 45.75 ± 2.47 (2), `never` not run. " in text
    assert f"Draw by draw: `good` +2.00 ± 0.50 (3) (t = {t:.1f}) to `plain`; `good` +2.25 ± 1.06 (2)" in text
    assert "## And never?\n\nOn `camvid_dev`: `never` not run, `good` 49.17 ± 2.25 (3). No pair is finished." in text


def test_the_report_says_how_it_was_run(tmp_path):
    table = table_of(tmp_path)
    table.results["good", "a"] = make_result("good", "a", dev_teacher=50, commit="def5678")
    text = text_of(table)
    assert cells(text, "b", "## How it was run")[0] == ["1", "`camvid_1_30_labeled`", "`camvid_1_30_unlabeled`"]
    assert "weight_study.py run studies/fields.yaml --rows ROW\n" in text
    assert "Runs by commit: abc1234 (19), def5678 (1)." in text


def test_labels_are_reported_before_and_after_weights_where_there_are_weights(tmp_path):
    table = table_of(tmp_path, judge=JUDGE)
    for shift, draw in enumerate("abc"):
        write_judged(table, "good", draw, 600, shift)
        write_judged(table, "plain", draw, 600, shift)
    write_judged(table, "good", "a", 200)
    text = text_of(table)
    labels = "## Pseudo-labels"
    assert cells(text, "good", labels)[0] == [
        "11.0",
        "21.0",
        "31.0",
        "41.0",
        "51.0",
        "12.0",
        "22.0",
        "32.0",
        "42.0",
        "52.0",
    ]
    assert cells(text, "plain", labels)[0] == ["11.0", "21.0", "", "", "51.0", "12.0", "22.0", "", "", "52.0"]
    assert cells(text, "bad", labels)[0][0] == cells(text, "never", labels)[0][0] == "not measured"
    after_200, after_600 = (cells(text, "good", title)[0] for title in ("After step 200", "After the last step"))
    assert after_200 == ["0.900 / 0.800 / 0.700 (1)"] * 2  # on one draw of three
    assert after_600 == ["0.910 / 0.810 / 0.710"] * 2
    assert cells(text.split("After the last step")[0], "plain", "After step 200") == []
    assert "After step 200:\n\nnot measured." in text_of(table_of(tmp_path / "none", judge=JUDGE))


def test_a_figure_that_no_draw_has_is_a_dash(tmp_path):
    table = table_of(tmp_path, judge=JUDGE)
    file = judged_file(tmp_path / "good" / "a", 600, JUDGE.images)
    file.parent.mkdir(parents=True)
    file.write_text(
        '{"pseudo_labels": {"accuracy-confident": NaN, "auroc-rank-pixel": NaN, "coverage-confident": 5.0}}'
    )
    assert cells(text_of(table), "good", "## Pseudo-labels")[0][:3] == ["5.0 (1)", "-", "-"]


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    table = table_of(tmp_path, judge=JUDGE)
    assert [file.name for file in draw_pictures(table, tmp_path / "x_").values()] == ["x_pairs.png"]
    for draw in "abc":
        for row in ("plain", "good"):
            write_judged(table, row, draw, 600)
            write_judged(table, row, draw, 200, shift=1)
    drawn = draw_pictures(table, tmp_path / "x_")
    assert [file.name for file in drawn.values()] == ["x_pairs.png", "x_calibration.png", "x_auroc.png"]
    text = text_of(table, drawn)
    for file in drawn.values():
        assert f"]({file.name})" in text
        assert np.asarray(Image.open(file).convert("L")).std() > 10
    assert draw_pictures(table_of(tmp_path, {}), tmp_path / "y_") == {}


def test_rows_of_another_study_in_the_folder_are_left_alone(tmp_path):
    table = table_of(tmp_path)
    stray = {
        ("gone", "a"): make_result("gone", "a", dev_teacher=99),
        ("good", "z"): make_result("good", "z", dev_teacher=99),
    }
    more = Table(table.study, {**table.results, **stray}, tmp_path)
    assert text_of(more) == text_of(table)


def test_a_score_looks_the_same_in_all_panels_and_has_one_name(tmp_path, monkeypatch):
    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: [drawn.append(figure), save(figure, *a, **k)])
    rows = {"plain": ({}, "plain"), "other": ({"SOLVER.MAX_ITER": "500"}, "other")}
    table = table_of(tmp_path, {name: DEV["plain"] for name in rows}, rows, judge=JUDGE)
    write_judged(table, "plain", "a", 600, scores=("rank",))
    write_judged(table, "other", "a", 600, scores=("confidence", "rank"))
    draw_pictures(table, tmp_path / "x_")
    panels = [{line.get_label(): line.get_color() for line in axes.lines} for axes in drawn[-1].axes]
    assert [list(panel) for panel in panels] == [["rank"]] * 2 + [["rank", "confidence"]] * 2
    assert len({panel["rank"] for panel in panels}) == 1 and panels[2]["confidence"] != panels[2]["rank"]
    assert [text.get_text() for text in drawn[-1].legends[0].get_texts()] == ["rank", "confidence"]
