import json
import re
import shutil

import pytest
from report_helpers import rows_of, write_rows

from wpl_d2.report import build, default_page, make_report, report_training, write_report
from wpl_d2.report.page import MAX_BYTES, render_page
from wpl_d2.utils.errors import InputError


def test_every_training_ends_with_its_page_and_the_same_numbers_as_json(runs):
    folder = runs["teacher"]
    page, report = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())
    (run,) = report["runs"]
    last = rows_of(folder)[-1]
    figure = run["figure"]
    assert figure["value"] == pytest.approx(last["sem_seg/mIoU"]) and figure["counts_are_of_it"]
    assert figure["low"] <= figure["value"] <= figure["high"] and figure["images"] == 2
    assert f"{figure['value']:.1f}<small> % mIoU" in page
    for row in run["classes"]:
        assert row["IoU"] == pytest.approx(last[f"sem_seg/IoU-{row['name']}"])
        assert row["Dice"] == pytest.approx(200 * row["IoU"] / (100 + row["IoU"]))
    assert run["what"]["labeled"]["images"] == 3 and run["what"]["unlabeled"]["images"] == 5
    assert {"losses", "figure", "rate", "shares", "weight", "class_share"} <= {chart["id"] for chart in run["charts"]}
    assert "MAX_ITER: 4" in run["config"] and not report["comparison"]


def test_pseudo_labels_are_judged_on_the_lists_that_the_config_names_alone(runs):
    reports = {name: make_report([folder])["runs"][0] for name, folder in runs.items()}
    (accuracy,) = reports["teacher"]["pseudo_label_accuracy"].values()
    assert 0 <= accuracy["confident"]["accuracy"] <= 100 and accuracy["pixel"]["coverage"] == 100
    assert any(chart["id"].startswith("accuracy_") for chart in reports["teacher"]["charts"])
    assert reports["supervised"]["pseudo_label_accuracy"] == {}


def test_the_page_asks_for_nothing_else_and_is_small(runs):
    page = render_page(make_report(list(runs.values())))
    assert len(page.encode()) < MAX_BYTES
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == [] and "sourceMappingURL" not in page
    assert page.count("<img ") == len(re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="[^"]+"', page)) > 0


def test_many_pictures_are_left_out_before_the_page_gets_large(runs, monkeypatch):
    report = make_report([runs["teacher"]])
    monkeypatch.setattr("wpl_d2.report.page.MAX_BYTES", 400_000)
    monkeypatch.setattr("wpl_d2.report.page.data_url", lambda picture: "data:," + 50_000 * "x")
    page = render_page(report)
    assert "<img" not in page and "do not fit into one file" in page


def test_a_run_that_was_killed_half_way_shows_what_there_is(run):
    shutil.rmtree(run / "inference")
    shutil.rmtree(run / "report")
    first = rows_of(run)[0]
    write_rows(run, [{key: value for key, value in first.items() if not key.startswith("sem_seg/")}])
    write_report([run], run / "report.html")
    (summary,) = json.loads((run / "report.json").read_text())["runs"]
    assert summary["verdict"]["headline"] == "Not evaluated yet"
    assert "not complete: it has come to step 2 of 4" in summary["verdict"]["notes"][0]
    assert "not complete" in (run / "report.html").read_text()


@pytest.mark.parametrize("left", ["config.yaml", "metrics.json"])
def test_one_file_of_a_run_is_enough(run, left):
    for path in run.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_report([run], run / "report.html")
    assert "Overview" in (run / "report.html").read_text()


def test_what_was_evaluated_without_counts_is_said_to_lack_them(run):
    shutil.rmtree(run / "inference")
    (summary,) = make_report([run])["runs"]
    assert "--evaluate" in summary["verdict"]["notes"][0] and summary["figure"]["low"] is None
    assert summary["figure"]["value"] == pytest.approx(rows_of(run)[-1]["sem_seg/mIoU"])


def test_counts_of_another_evaluation_are_said_to_be(run):
    rows = rows_of(run)
    rows[-1]["sem_seg/mIoU"] += 1
    write_rows(run, rows)
    assert "of another evaluation" in " ".join(make_report([run])["runs"][0]["verdict"]["notes"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "no such folder"),
        (lambda folder: folder, r"is not the folder of a run; give one that a training wrote, such as .*teacher_s1"),
        (lambda folder: folder / "teacher_s1" / "report", "with its config.yaml and metrics.json"),
    ],
)
def test_a_folder_that_is_no_run_is_one_clear_error(run, make, message):
    with pytest.raises(InputError, match=message):
        make_report([make(run.parent)])


def test_a_report_that_fails_ends_no_training(runs, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError("no template")

    monkeypatch.setattr(build, "write_report", fail)
    monkeypatch.setattr(build, "gather_evidence", fail)
    cfg = type("Config", (), {"OUTPUT_DIR": str(runs["teacher"])})
    report_training(cfg, None)
    assert caplog.text.count("could not be drawn") == 2 and "no template" in caplog.text


def test_names_are_text_and_never_markup(run):
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(text.replace('IoU-ball"', 'IoU-<script>alert(1)</script>"'))
    shutil.rmtree(run / "inference")
    (run / "report/evidence.json").unlink()
    page = render_page(make_report([run]))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


def test_settings_that_were_fitted_are_shown_with_their_reasons(run):
    setting = {"key": "SOLVER.MAX_ITER", "value": "600", "reason": "of 9 labeled images"}
    (run / "fitted.json").write_text(json.dumps([setting]))
    report = make_report([run])
    assert report["runs"][0]["fitted"] == [setting]
    assert "of 9 labeled images" in render_page(report)
    (run / "fitted.json").write_text("[")
    assert "Settings that fit the data" not in render_page(make_report([run]))


def test_warnings_and_commands_are_read_from_the_log(run):
    (run / "log.txt").write_text(
        "[11/28 17:29:40] wpl_d2.engine.setup INFO: wpl train fields.yaml SEED 1\n"
        "  device: cpu, processes: 1, config and environment: output\n"
        "[11/28 17:29:41] wpl_d2.evaluation.evaluator WARNING: Left out of the evaluation: a.png: is cut short\n"
        "[11/28 17:29:42] wpl_d2.evaluation.evaluator WARNING: Left out of the evaluation: a.png: is cut short\n"
    )
    (summary,) = make_report([run])["runs"]
    assert summary["commands"] == ["wpl train fields.yaml SEED 1"]
    assert summary["warnings"] == ["Left out of the evaluation: a.png: is cut short"]


def test_the_page_lies_where_its_runs_do(tmp_path):
    assert default_page([tmp_path / "a"]) == tmp_path / "a" / "report.html"
    assert default_page([tmp_path / "a", tmp_path / "b"]) == tmp_path / "report.html"
