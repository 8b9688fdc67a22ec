import numpy as np
from PIL import Image

from wpl_d2.visualization.sheet import compose

LEGEND = {"ground": (200, 0, 0), "sky": (0, 0, 200)}


def row_of(*titles, size=(256, 128), color=(0, 250, 0)):
    return {title: Image.new("RGB", size, color) for title in titles}


def test_long_legends_take_more_lines():
    row = row_of("image")
    short = compose([row], {"a": (1, 2, 3)}, "heading")
    long = compose([row], {f"class {i}": (i, i, i) for i in range(20)}, "heading")
    assert long.width == short.width and long.height > short.height


def test_heading_titles_and_note_have_lines_of_their_own_and_hide_no_picture():
    sheet = np.asarray(compose([row_of("image", "mask"), row_of("image", "mask")], LEGEND, "what is shown"))
    assert ((sheet == (0, 250, 0)).all(axis=2).sum()) == 4 * 256 * 128
    dark = (sheet.sum(axis=2) < 200).any(axis=1)
    assert dark[:26].any() and dark[26:52].any()
    noted = np.asarray(compose([row_of("image", "mask")] * 2, LEGEND, "what is shown", "and how"))
    scaled = np.asarray(compose([row_of("image", "mask")] * 2, LEGEND, "what is shown", "and how", weights=True))
    bare = np.asarray(compose([row_of("image", "mask")] * 2, {}, "what is shown"))
    assert len(bare) < len(sheet) < len(noted) < len(scaled)
    assert np.array_equal(sheet[:-10], noted[: len(sheet) - 10]) and np.array_equal(
        noted[:-10], scaled[: len(noted) - 10]
    )


def test_small_pictures_do_not_crowd_their_titles():
    sheet = compose([row_of("a very long title of a column", "b", size=(20, 20))], {"a": (1, 2, 3)}, "heading")
    green = np.flatnonzero((np.asarray(sheet) == (0, 250, 0)).all(axis=2).any(axis=0))
    starts = green[np.flatnonzero(np.diff(green, prepend=-9) > 1)]
    assert starts[1] - starts[0] > 150
