"""JSON an entry at a time, against the standard reader; in little memory."""

import json
import tracemalloc

import pytest

from wpl_d2.data.labels import json_entries
from wpl_d2.data.labels.json_entries import read_entries
from wpl_d2.utils.errors import InputError

CONTENT = {
    "info": {"year": 2024, "by": "Zoë"},
    "images": [{"id": 1, "name": 'Straße "7"\\.jpg'}, {"id": 2, "name": "日本 ]}"}],
    "empty": [],
    "by_name": {"ä": [1.5, -2e3, None], "b": {"c": {}}},
    "number": 123456789,
    "last": True,
}


@pytest.mark.parametrize("chunk", [3, 7, 64, 1 << 20])
@pytest.mark.parametrize("how", [{}, {"ensure_ascii": False}, {"indent": 2, "ensure_ascii": False}])
def test_entries_are_those_of_the_file_wherever_it_is_cut(tmp_path, monkeypatch, chunk, how):
    monkeypatch.setattr(json_entries, "_CHUNK", chunk)
    file = tmp_path / "a.json"
    file.write_text("\ufeff" + json.dumps(CONTENT, **how), encoding="utf-8")
    expected = [("info", CONTENT["info"]), *(("images", image) for image in CONTENT["images"])]
    expected += [("by_name", value) for value in CONTENT["by_name"].values()]
    expected += [("number", 123456789), ("last", True)]
    entries = list(read_entries(file, ["images", "empty", "by_name"]))
    assert [(entry.key, entry.value) for entry in entries] == expected
    content = file.read_bytes()
    assert [json.loads(content[entry.start : entry.end]) for entry in entries] == [value for _, value in expected]


@pytest.mark.parametrize("text", ["[1, 2", '{"a" 1}', "[1,]", "[1] 2", "{1: 2}", '["a', "[tru]", '{"a": [1}', "[1 2]"])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_what_is_no_json_is_refused(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(json_entries, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a.json: is not JSON, or not whole"):
        list(read_entries(tmp_path / "a.json", ["a"]))


def test_a_long_list_takes_no_more_memory_than_a_short_one(tmp_path, monkeypatch):
    monkeypatch.setattr(json_entries, "_CHUNK", 1 << 12)

    def peak(count):
        file = tmp_path / f"{count}.json"
        entry = {"id": 1, "segmentation": [[0.5] * 100]}
        file.write_text(json.dumps({"annotations": [entry] * count}))
        tracemalloc.start()
        assert sum(1 for _ in read_entries(file, ["annotations"])) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is imported on first use
    assert peak(2000) < 1.1 * peak(100)
