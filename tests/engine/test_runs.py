"""What trainings left behind is read and summed up rightly."""

import json
import math

import pytest
from scipy import stats

from wpl_d2.engine import Spread, is_finished, last_value, paired_differences, read_metrics
from wpl_d2.utils.errors import InputError


def test_metrics_are_read_as_they_were_written(tmp_path):
    file = tmp_path / "metrics.json"
    assert read_metrics(file) == []
    rows = [{"iteration": 19, "eta_seconds": 3.5}, {"iteration": 20, "sem_seg/mIoU": 40.0}]
    # A resumed run writes on; the last value counts.
    rows += [{"iteration": 39, "eta_seconds": 0.0}, {"iteration": 40, "sem_seg/mIoU": math.nan}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    read = read_metrics(file)
    assert [row["iteration"] for row in read] == [19, 20, 39, 40]
    assert math.isnan(last_value(read, "sem_seg/mIoU"))
    assert last_value(read[:-1], "sem_seg/mIoU") == 40.0
    assert last_value(read, "student/sem_seg/mIoU") is None
    assert is_finished(read) and not is_finished(read[:2]) and not is_finished([])


@pytest.mark.parametrize("end", ['{"iteration": 2', "}", '{"a": 1}{"b": 2}', "\x00"])
def test_a_damaged_line_is_named(tmp_path, end):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1}\n' + end)
    with pytest.raises(InputError, match=r"metrics\.json: is damaged .*; mend its last line"):
        read_metrics(file)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.5], [3.0, 3.5], [-1.0, 0.5, 0.25, -2.0, 3.0]])
def test_the_spread_and_t_are_scipys(values):
    spread = Spread.of(iter(values))
    assert (spread.count, spread.mean) == (len(values), pytest.approx(sum(values) / len(values)))
    assert spread.deviation == pytest.approx(stats.tstd(values))
    assert spread.t == pytest.approx(stats.ttest_1samp(values, 0).statistic)
    assert str(spread) == f"{spread.mean:.2f} ± {spread.deviation:.2f} ({len(values)})"


def test_few_or_equal_values_have_no_t():
    assert str(Spread.of([])) == "" and math.isnan(Spread.of([]).mean)
    assert str(Spread.of([2.0])) == "2.00 (1)"
    assert all(math.isnan(Spread.of(values).t) for values in ([], [2.0], [2.0, 2.0]))


def test_differences_are_of_what_both_have():
    assert paired_differences({0: 3.0, 1: 5.0, 2: 1.0}, {0: 1.0, 2: 2.0, 3: 9.0}) == {0: 2.0, 2: -1.0}
