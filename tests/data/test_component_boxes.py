import os

import numpy as np
import pytest

from wpl_d2.data import attach_component_boxes, boxes_from_mask
from wpl_d2.data import component_boxes as boxes


def flood_fill_boxes(mask, classes, min_area):
    """The definition, pixel by pixel."""
    found = []
    seen = np.zeros(mask.shape, dtype=bool)
    for y, x in np.ndindex(mask.shape):
        if seen[y, x] or mask[y, x] not in classes:
            continue
        component, stack = [], [(y, x)]
        seen[y, x] = True
        while stack:
            cy, cx = stack.pop()
            component.append((cy, cx))
            for ny in range(max(0, cy - 1), min(mask.shape[0], cy + 2)):
                for nx in range(max(0, cx - 1), min(mask.shape[1], cx + 2)):
                    if not seen[ny, nx] and mask[ny, nx] == mask[y, x]:
                        seen[ny, nx] = True
                        stack.append((ny, nx))
        if len(component) >= min_area:
            rows, columns = zip(*component, strict=True)
            box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
            found.append((int(mask[y, x]), *box))
    return sorted(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("min_area", [1, 4, 9])
def test_boxes_are_those_of_a_flood_fill(dtype, min_area):
    rng = np.random.default_rng(min_area)
    for _ in range(20):
        mask = rng.choice([0, 1, 2, 7, 255], p=[0.4, 0.2, 0.2, 0.1, 0.1], size=(23, 31)).astype(dtype)
        found, ids = boxes_from_mask(mask, [7, 1, 2], min_area=min_area)
        got = sorted((int(c), *box) for c, box in zip(ids, found.tolist(), strict=True))
        assert got == flood_fill_boxes(mask, {1, 2, 7}, min_area)
        assert ids.tolist() == sorted(ids, key=[7, 1, 2].index)


def test_area_is_counted_in_pixels_not_in_the_box():
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[np.arange(20), np.arange(20)] = 1  # a diagonal: 20 pixels, 8-connected, in a box of 400
    assert boxes_from_mask(mask, [1], min_area=21)[0].shape == (0, 4)
    assert boxes_from_mask(mask, [1], min_area=20)[0].tolist() == [[0, 0, 20, 20]]


def test_default_smallest_area_is_90_and_ignored_pixels_get_no_box():
    mask = np.full((30, 30), 255, dtype=np.uint8)
    mask[2:11, 3:13] = 4
    mask[20:29, 3:12] = 4
    found, ids = boxes_from_mask(mask, [4, 255])
    assert found.tolist() == [[3, 2, 13, 11]]
    assert ids.tolist() == [4]
    assert boxes_from_mask(mask, [])[0].shape == (0, 4)


@pytest.mark.parametrize("mask", [np.zeros((4, 4)), np.zeros((4, 4, 1), dtype=np.uint8)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="mask: is a"):
        boxes_from_mask(mask, [1])


def test_boxes_are_computed_once_and_anew_when_a_mask_changes(tree, monkeypatch):
    records = [{"sem_seg_file_name": str(tree.mask(f"labeled{i}"))} for i in range(3)]
    first = attach_component_boxes(records, (2, 1), 90)
    assert first[1]["boxes"].dtype == np.float32
    assert first[1]["boxes"].tolist() == [[35, 30, 51, 45], [8, 6, 30, 25]]
    assert first[1]["box_classes"].tolist() == [0, 1]
    assert "boxes" not in records[0]

    reads = []
    read = boxes.read_record_mask
    monkeypatch.setattr(boxes, "read_record_mask", lambda record: reads.append(record) or read(record))
    again = attach_component_boxes(records, (2, 1), 90)
    assert not reads
    assert all(np.array_equal(a["boxes"], b["boxes"]) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(a["box_classes"], b["box_classes"]) for a, b in zip(first, again, strict=True))

    assert len(attach_component_boxes(records, (2, 1), 10000)[0]["boxes"]) == 0
    assert len(reads) == 3
    tree.write_mask("labeled1", np.zeros((50, 60), dtype=np.uint8))
    os.utime(tree.mask("labeled1"), (1, 1))
    assert [len(r["boxes"]) for r in attach_component_boxes(records, (2, 1), 90)] == [2, 0, 2]


def test_a_damaged_or_unwritable_cache_is_no_obstacle(tree, monkeypatch, caplog):
    records = [{"sem_seg_file_name": str(tree.mask("labeled0"))}]
    expected = attach_component_boxes(records, (1,), 90)[0]["boxes"]
    (stored,) = (tree.root.parent / "cache").glob("*.npz")
    whole = stored.read_bytes()
    packed, other = stored.with_name("packed.npz"), stored.with_name("other.npz")
    np.savez_compressed(packed, **np.load(stored))
    np.savez(other, boxes=np.zeros((2, 4)), classes=np.zeros(3), counts=np.ones(1, int))
    for content in (b"half a file", b"", whole[:-10], other.read_bytes()):
        stored.write_bytes(content)
        assert np.array_equal(attach_component_boxes(records, (1,), 90)[0]["boxes"], expected)
        assert stored.read_bytes() == whole
    content = packed.read_bytes()
    for place in range(0, len(content), 7):  # some reader fails on it, or it does not matter
        stored.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert np.array_equal(attach_component_boxes(records, (1,), 90)[0]["boxes"], expected)
    monkeypatch.setenv("WPL_D2_CACHE", str(tree.mask("labeled0")))  # a file is not a folder
    assert np.array_equal(attach_component_boxes(records, (1,), 90)[0]["boxes"], expected)
    assert "set WPL_D2_CACHE" in caplog.text
