"""Runs are summed up over seeds, whether a folder or a table holds them."""

import json

import pytest

from wpl_d2.cli import main

TABLE = """study,run,seed,step,commit,command,figures
fields,plain,0,5,abc,train,val/mIoU=1 dev/mIoU=10
fields,plain,0,10,abc,train,val/mIoU=40 dev/mIoU=50
fields,plain,1,10,abc,train,val/mIoU=42 dev/mIoU=54
fields,ours,1,10,abc,train,val/mIoU=45
roads,plain,0,10,abc,train,val/mIoU=7
"""


@pytest.fixture
def summarize(capsys):
    """The cells of the table that the tool prints, without its titles."""

    def run(*args):
        assert main(["summarize", *map(str, args)]) == 0
        lines = capsys.readouterr().out.splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    return run


@pytest.fixture
def table(tmp_path):
    (tmp_path / "runs.csv").write_text(TABLE)
    return tmp_path / "runs.csv"


def test_a_folder_of_runs_is_summed_up(tmp_path, summarize):
    for name, score in {"plain_s0": 40.0, "plain_s1": 42.0, "ours_s1": 45.0, "stopped_s0": None, "copy": 1.0}.items():
        (tmp_path / name).mkdir()
        rows = [{"iteration": 5, "sem_seg/mIoU": 1.0}] if score else []
        rows.append({"iteration": 6} if score is None else {"iteration": 6, "sem_seg/mIoU": score})
        (tmp_path / name / "metrics.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert summarize(tmp_path, "--baseline", "plain") == [
        ["ours", "1", "45.00", "", "1: 45.00"],
        ["minus plain", "1", "3.00", "", "1: 3.00"],
        ["plain", "2", "41.00", "1.41", "0: 40.00, 1: 42.00"],
    ]


def test_of_a_table_the_last_step_of_each_run_counts(table, summarize):
    keys = ["--key", "val/mIoU", "dev/mIoU"]
    assert summarize(table, "--study", "fields", *keys, "--runs", "ours", "plain", "--baseline", "plain") == [
        ["ours", "1", "45.00", ""],
        ["minus plain", "1", "3.00", ""],
        ["plain", "2", "41.00 ± 1.41", "52.00 ± 2.83"],
    ]
    assert summarize(table, "--study", "roads", "--key", "val/mIoU") == [["plain", "1", "7.00", "", "0: 7.00"]]


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        (TABLE, ["--study", "field"], "--study: 'field' is not known; did you mean fields"),
        (TABLE, [], "--study: is missing; "),
        (TABLE, ["--study", "roads", "--key", "val"], "runs.csv: no run has measured val; give --key the name of"),
        ("a,b\n1,2\n", [], "runs.csv: is not a table of runs; its first line must name figures, run, seed, study"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(table, capsys, text, args, message):
    table.write_text(text)
    with pytest.raises(SystemExit):
        main(["summarize", str(table), *args])
    assert message in capsys.readouterr().err
