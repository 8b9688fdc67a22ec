import itertools
import random
from pathlib import PurePath

import pytest

from wpl_d2.inference.result_names import result_names


def names(*places):
    return [str(name) for name in result_names([PurePath(place) for place in places])]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["a.jpg", "b.png", "sub/a.jpg", "noext"], ["a", "b", "sub/a", "noext"]),
        # All that would share a name keep their suffix.
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg", "a.png", "a.jpg.png", "sub.d/a.png"], ["a.jpg", "a.png", "a.jpg.png", "sub.d/a"]),
        (["a", "a.png", "a.png.png"], ["a", "a.png", "a.png.png"]),
        # On many disks these are one name.
        (["b.PNG", "b.png"], ["b.PNG", "b.png-2"]),
        (["a.x", "A.x", "a.X", "a.x-2"], ["a.x", "A.x-2", "a.X-3", "a.x-2-2"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),
        (["e\u0301.png", "\u00e9.png"], ["e\u0301.png", "\u00e9.png-2"]),
        # a.png would be a file and a folder.
        (["a.jpg", "a.png/b.jpg"], ["a.jpg", "a.png/b"]),
    ],
)
def test_names(places, expected):
    assert names(*places) == expected


def test_no_two_results_share_a_file():
    draw = random.Random(0)
    parts = ["a", "A", ".png", ".jpg", "-2", ".PNG", "a.png/", "a/"]
    for _ in range(3000):
        texts = {"".join(draw.choices(parts, k=draw.randint(1, 5))) for _ in range(7)}
        places = sorted({PurePath(text) for text in texts})
        places = [place for place in places if not any(place in other.parents for other in places)]
        results = result_names(places)
        files = {f"{name}.png".casefold() for name in results}
        folders = {str(folder).casefold() for name in results for folder in name.parents}
        assert len(files) == len(places) and not files & folders, places


def test_the_order_of_the_files_is_not_what_names_them():
    places = ["a.jpg", "a.png", "b.tif", "a.jpg.png"]
    expected = dict(zip(places, names(*places), strict=True))
    for order in itertools.permutations(places):
        assert dict(zip(order, names(*order), strict=True)) == expected
