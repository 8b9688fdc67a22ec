"""Settings that fit a data set: what the rules give for made-up measures, and that each of them is a valid config."""

from dataclasses import replace
from itertools import pairwise

import pytest

from wpl_d2.config import get_cfg
from wpl_d2.config.config import set_value
from wpl_d2.config.fitting import DatasetFacts, Device, GiB, fit_settings
from wpl_d2.config.validation import check_config

CPU = Device(cores=2)
GPU = Device(cores=16, gpu_memory=24 * GiB)
FIELDS = DatasetFacts(
    labeled=60,
    unlabeled=600,
    val=50,
    size=(360, 480),
    classes=("ground", "crop", "weed", "stone"),
    boxes=(200,),
    box_side=50.0,
    box_sizes=(20.0, 40.0, 60.0, 90.0, 130.0),
)
NO_OBJECTS = {"boxes": (), "box_side": 0.0, "box_sizes": ()}
CASES = {
    "fields": {},
    "tiny_images": {"size": (28, 28), **NO_OBJECTS},
    "small_images": {"size": (128, 128)},
    "huge_images": {"size": (8000, 6000)},
    "strips": {"size": (100, 4000), **NO_OBJECTS},
    "two_labeled": {"labeled": 2},
    "five_labeled": {"labeled": 5, "unlabeled": 3},
    "many_labeled": {"labeled": 50_000, "unlabeled": 200_000, "val": 500},
    "one_object": {"classes": ("background", "crack"), "boxes": (3,)},
    "many_classes": {"classes": tuple(f"class_{i}" for i in range(150)), "boxes": (50,) * 100},
    "no_unlabeled": {"unlabeled": 0},
    "no_val": {"val": 0},
    "digits": {"classes": ("background", "one", "two"), "boxes": (80, 80), "color_kappa": 0.9},
}


def fit(device=CPU, **changes):
    return {setting.key: setting.value for setting in fit_settings(replace(FIELDS, **changes), device)}


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("case", CASES)
def test_settings_are_valid_and_have_reasons(case, device):
    cfg = get_cfg()
    settings = fit_settings(replace(FIELDS, **CASES[case]), device)
    for key, value, reason in settings:
        set_value(cfg, key, value, "fit")
        assert reason
    assert len({setting.key for setting in settings}) == len(settings)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    check_config(cfg)
    low, high = cfg.INPUT.SCALE_RANGE
    (scale,) = cfg.TEST.INFERENCE.SCALES
    assert low <= scale < high
    assert CASES[case].get("labeled", 60) >= cfg.SOLVER.IMS_PER_BATCH
    assert cfg.FRAMEWORK.BURN_IN < cfg.SOLVER.MAX_ITER
    assert 0 <= cfg.TEST.EVAL_PERIOD <= cfg.SOLVER.MAX_ITER


def test_crops_show_as_much_of_images_of_any_size():
    shorts = (28, 64, 100, 128, 200, 256, 360, 720, 2000, 6000)
    crops = [fit(size=(short, 2 * short), **NO_OBJECTS) for short in shorts]
    sizes = [crop["INPUT.CROP_SIZE"][0] for crop in crops]
    assert sizes == [64, 64, 128, 128, 128, 128, 192, 192, 192, 192]
    scales = [crop["TEST.INFERENCE.SCALES"][0] for crop in crops]
    assert all(low >= high for low, high in pairwise(scales))
    seen = [size / scale / short for size, scale, short in zip(sizes, scales, shorts, strict=True)]
    assert min(seen) > 0.45
    assert fit(GPU, size=(2000, 3000), **NO_OBJECTS)["INPUT.CROP_SIZE"] == (512, 512)


def test_small_objects_keep_the_size_that_can_be_seen():
    assert fit(size=(3000, 4000))["TEST.INFERENCE.SCALES"] == (0.32,)
    assert fit(size=(3000, 4000), box_side=8.0)["TEST.INFERENCE.SCALES"] == (1.0,)
    assert fit(size=(3000, 4000), **NO_OBJECTS)["TEST.INFERENCE.SCALES"] == (0.13,)


def test_more_labels_mean_longer_trainings_and_more_trust():
    fitted = [fit(labeled=labeled) for labeled in (2, 5, 12, 30, 60, 200, 1000, 50_000)]
    for key, rises in (("SOLVER.MAX_ITER", 1), ("FRAMEWORK.ALPHA", 1), ("SOLVER.BASE_LR", -1)):
        values = [rises * settings[key] for settings in fitted[1:]]  # the first has a smaller batch
        assert values == sorted(values), key
        assert values[0] < values[-1], key
    shares = [settings["FRAMEWORK.BURN_IN"] / settings["SOLVER.MAX_ITER"] for settings in fitted]
    assert max(shares) == shares[0] == 0.5
    assert 0 < min(shares) < 0.1
    classes = tuple(f"class_{i}" for i in range(40))
    assert fit(labeled=100, classes=classes)["FRAMEWORK.ALPHA"] < fit(labeled=100)["FRAMEWORK.ALPHA"] == 1
    assert fit(GPU)["SOLVER.MAX_ITER"] == 10 * fit()["SOLVER.MAX_ITER"]


def test_what_is_given_is_left_out_and_followed():
    given = {"SOLVER.MAX_ITER": 100, "SOLVER.IMS_PER_BATCH": 1, "INPUT.CROP_SIZE": (64, 64)}
    settings = {setting.key: setting.value for setting in fit_settings(FIELDS, CPU, given)}
    assert not given.keys() & settings.keys()
    assert settings["FRAMEWORK.BURN_IN"] == 50
    assert settings["SOLVER.BASE_LR"] == 0.00015
    assert settings["TEST.EVAL_PERIOD"] <= 100
    assert "MODEL.WEIGHTS" in fit(GPU)
    backbone = fit_settings(FIELDS, GPU, {"MODEL.TIMM.NAME": "resnet18"})
    assert not {"MODEL.WEIGHTS", "MODEL.BACKBONE.NAME"} & {setting.key for setting in backbone}
    small = replace(FIELDS, box_side=12.0)
    keys = {setting.key for setting in fit_settings(small, CPU, {"MODEL.DETECTOR.MODE": "shared"})}
    assert "MODEL.ANCHOR_GENERATOR.SIZES" in keys - {setting.key for setting in fit_settings(small, CPU)}


def test_memory_bounds_the_batch():
    batches = [fit(Device(16, memory * GiB))["SOLVER.IMS_PER_BATCH"] for memory in (4, 8, 16, 24, 40, 80)]
    assert batches == [2, 2, 2, 4, 8, 16]
    assert fit(labeled=3, unlabeled=5)["SOLVER.IMS_PER_BATCH"] == 2


def test_without_unlabeled_images_it_is_supervised():
    assert fit(unlabeled=0)["FRAMEWORK.NAME"] == "Supervised"
    assert fit(unlabeled=0)["WEIGHTING.ENABLED"] is False
    assert "FRAMEWORK.ALPHA" not in fit(unlabeled=0)
    assert fit()["FRAMEWORK.NAME"] == "MeanTeacher"


def test_a_detector_is_for_objects_that_are_large_and_many_enough():
    assert fit()["MODEL.DETECTOR.MODE"] == "shared"
    assert fit()["MODEL.ANCHOR_GENERATOR.SIZES"] == [[16, 32, 64, 128]]
    assert fit(box_side=12.0)["MODEL.DETECTOR.MODE"] == "none"
    assert fit(boxes=(5, 12))["MODEL.DETECTOR.MODE"] == "none"
    assert fit(**NO_OBJECTS)["MODEL.DETECTOR.MODE"] == "none"


@pytest.mark.parametrize(
    ("name", "flip"), [("left lane", "none"), ("seven", "none"), ("b", "none"), ("leftover", None), ("class_1", None)]
)
def test_what_differs_in_a_mirror_is_not_mirrored(name, flip):
    assert fit(classes=("ground", name)).get("INPUT.RANDOM_FLIP") == flip


def test_evaluations_cost_a_fifth_at_most():
    assert fit(val=1)["TEST.EVAL_PERIOD"] == fit()["SOLVER.MAX_ITER"] / 10
    assert fit(val=100_000)["TEST.EVAL_PERIOD"] == fit()["SOLVER.MAX_ITER"]
    assert fit(val=0)["TEST.EVAL_PERIOD"] == 0


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
def test_channels_that_are_no_colors_keep_their_own_statistics(device):
    settings = fit(device, channels=((10.0, 20.0), (5.0, 6.123456)))
    assert settings["MODEL.PIXEL_MEAN"] == [10.0, 20.0] and settings["MODEL.PIXEL_STD"] == [5.0, 6.1235]


def test_where_color_tells_classes_apart_strong_views_keep_it():
    assert not {"INPUT.STRONG.JITTER", "INPUT.STRONG.GRAY_PROB"} & fit(color_kappa=0.2).keys()
    told = fit(color_kappa=0.8)
    assert told["INPUT.STRONG.JITTER"][3] < 0.05
    assert told["INPUT.STRONG.GRAY_PROB"] == 0


def test_few_labels_are_enough_where_color_tells_classes_apart():
    assert fit(labeled=12)["FRAMEWORK.ALPHA"] < 1
    assert fit(labeled=12, color_kappa=0.8)["FRAMEWORK.ALPHA"] == 1
