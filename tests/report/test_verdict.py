import pytest

from wpl_d2.report.verdict import explain_class, judge_run

WHAT = {"threshold": 0.95}


def row_of(name="cow", iou=30.0, **changes):
    row = {"name": name, "IoU": iou, "recall": 60.0, "pseudo_share": None, "pseudo_selected": None}
    return row | {"labeled_share": 5.0, "labeled_images": 20, "labeled_counted": 32} | changes


def summary_of(*classes, value=60.0, points=((100, 60.0),), **changes):
    steps = dict(points)
    best = max(steps, key=steps.get)
    figure = {"name": "mIoU", "value": value, "step": points[-1][0], "images": 9, "counts_are_of_it": True}
    figure["best"] = {"value": steps[best], "step": best}
    charts = [{"id": "figure", "series": [{"points": [list(point) for point in points]}]}]
    known = {"finished": True, "steps": 100, "max_steps": 100, "left_out": None, "what": WHAT}
    return known | {"figure": figure, "classes": classes, "charts": charts} | changes


@pytest.mark.parametrize(
    ("ious", "value", "level", "headline"),
    [
        ((90, 70), 80.0, "good", "Good: every class reaches an IoU of 50 %"),
        ((60, 70), 65.0, "fair", "Fair: every class reaches an IoU of 50 %"),
        ((90, 40), 65.0, "fair", "Fair: b fails"),
        ((20, 40), 30.0, "poor", "Poor: 2 of 2 classes fail"),
    ],
)
def test_levels(ious, value, level, headline):
    verdict = judge_run(summary_of(*(row_of(name, iou) for name, iou in zip("ab", ious, strict=True)), value=value))
    assert (verdict["level"], verdict["headline"], verdict["notes"]) == (level, headline, [])


def test_the_worst_class_comes_first_and_one_that_does_not_occur_is_no_failure():
    verdict = judge_run(summary_of(row_of("a", 40.0), row_of("b", 10.0), row_of("c", None)))
    assert [row["class"] for row in verdict["failing"]] == ["b", "a"] and "2 of 2" in verdict["headline"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"labeled_share": 0.2, "labeled_images": 3},
            "few pixels: 0.2 % of the labeled ones, in 3 of 32 labeled images",
        ),
        ({"recall": 0.2}, "hardly ever predicted"),
        ({"taken_for": {"class": "horse", "share": 31.0}}, "confused: 31 % of its pixels are taken for horse"),
        ({"mistaken": {"class": "dog", "share": 20.0}}, "20 % of the pixels called cow are dog"),
        ({"pseudo_share": 0.0}, "no pseudo-label names it"),
        (
            {"pseudo_share": 0.1, "pseudo_selected": 0.004},
            "never confident: 0.4 % of its pseudo-labels reach FRAMEWORK.THRESHOLD 0.95",
        ),
    ],
)
def test_why_a_class_fails(changes, reason):
    assert explain_class(row_of(**changes), WHAT) == [reason]


def test_small_confusions_are_no_reason():
    small = {"class": "dog", "share": 9.0}
    (reason,) = explain_class(row_of(taken_for=small, mistaken=small), WHAT)
    assert reason.startswith("no single cause")


def test_notes_say_what_to_do_next():
    earlier = judge_run(summary_of(value=60.0, points=((50, 64.0), (100, 60.0))))
    assert earlier["notes"] == ["The evaluation at step 50 was better (64.0 %): model_best.pth is that model."]
    rising = judge_run(summary_of(value=60.0, points=((50, 55.0), (70, 57.0), (100, 60.0))))
    assert rising["notes"] == ["mIoU rose by 3.0 since step 70: more steps may help."]
    assert judge_run(summary_of(left_out=2.0))["notes"] == [
        "2 images could not be judged and were left out; see the warnings."
    ]
