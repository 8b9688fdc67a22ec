"""The presets say what is published, build and switch nothing off; weighted ones differ by weighting and detector."""

import logging
from pathlib import Path

import pytest
from helpers import build_on_meta

from wpl_d2.config import get_cfg, load_cfg
from wpl_d2.config.config import leaf_keys
from wpl_d2.config.layers import value_of
from wpl_d2.config.validation import warn_unused
from wpl_d2.data import load_description
from wpl_d2.data.preparation import published_lists
from wpl_d2.engine import solver
from wpl_d2.engine.solver import resolve_epochs, scale_schedule
from wpl_d2.frameworks import ineffective_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = {
    str(path.relative_to(CONFIGS).with_suffix("")): str(path)
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.parent.name not in ("_base_", "datasets")
}


def images_of(name):
    """The length of a published list; of a ground for small trainings, any."""
    data, _, rest = name.partition("_")
    known = published_lists(data).get(rest)
    return known.images if known else 355


@pytest.fixture
def resolved(monkeypatch):
    """Reads a preset as a run does, on lists of the published lengths."""
    monkeypatch.setattr(solver, "load_records", lambda name, key: range(images_of(name)))

    def read(name, *opts):
        cfg = load_cfg(PRESETS[name], opts)
        resolve_epochs(cfg)
        scale_schedule(cfg, opts[::2])
        return cfg

    return read


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds(resolved, caplog, name):
    cfg = resolved(name)
    description = load_description(cfg.DATASETS.DESCRIPTION)
    lists = {f"{description.name}_{name}" for name in description.lists}
    assert cfg.DATASETS.TRAIN
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.UNLABELED, *cfg.DATASETS.TEST} <= lists
    assert cfg.OUTPUT_DIR.startswith("output/") and "{" not in cfg.OUTPUT_DIR + cfg.MODEL.DETECTOR.CACHE
    framework = build_on_meta(cfg)
    assert type(framework).__name__ == cfg.FRAMEWORK.NAME
    assert bool(cfg.DATASETS.UNLABELED) == framework.semi_supervised
    assert ineffective_keys(cfg, framework) == []
    with caplog.at_level(logging.WARNING):
        warn_unused(cfg, get_cfg())
    assert not caplog.records


# Steps of an epoch by split, counted by hand from the published lists, batches and numbers of GPUs; AugSeg's authors'
# logs have 569 (VOC, 1464) and 174 (Cityscapes, 1/16).
STEPS = {
    "voc/unimatch": {"92": 1311, "183": 1300, "366": 1277, "732": 1231, "1464": 1140},
    "voc/unimatch_blender": {"u2pl_1_16": 1240, "u2pl_1_8": 1157, "u2pl_1_4": 992},
    "voc/augseg": {
        **{"92": 655, "183": 650, "366": 638, "732": 615, "1464": 569},
        **{"u2pl_1_16": 620, "u2pl_1_8": 578, "u2pl_1_4": 496},
    },
    "voc/u2pl": {
        **{"92": 655, "183": 650, "366": 638, "732": 615, "1464": 570},
        **{"u2pl_1_16": 620, "u2pl_1_8": 578, "u2pl_1_4": 496},
    },
    "voc/ael": {
        **{"92": 656, "183": 650, "366": 638, "732": 616, "1464": 570},
        **{"u2pl_1_16": 620, "u2pl_1_8": 579, "u2pl_1_4": 496},
    },
    "voc/allspark": {"92": 1311, "1464": 1140, "1_16": 1240},
    "voc/corrmatch": {"92": 655, "1464": 570},
    "voc/unimatch_v2": {"92": 655, "1464": 570},
    "voc/semivl": {"92": 1311, "1464": 1140},
    "voc/st_plus_plus": {"92": 1311, "1_16": 1240, "1464": 1139},
    "voc/supervised": {"92": 5, "183": 11},
    "cityscapes/unimatch": {"1_30": 359, "1_16": 349, "1_8": 325, "1_4": 279, "1_2": 186},
    "cityscapes/augseg": {"1_30": 179, "1_16": 174, "1_8": 162, "1_4": 139, "1_2": 93},
    "cityscapes/u2pl": {"1_30": 180, "1_16": 174, "1_8": 163, "1_4": 139, "1_2": 93},
    "cityscapes/ael": {"1_30": 180, "1_16": 174, "1_8": 163, "1_4": 139, "1_2": 93},
    "cityscapes/allspark": {"1_16": 349, "1_2": 186},
    "cityscapes/corrmatch": {"1_16": 174, "1_2": 93},
    "cityscapes/st_plus_plus": {"1_16": 348, "1_8": 325},
    "cityscapes/supervised": {"1_16": 11},
    "ade20k/unimatch_v2": {"1_64": 2487, "1_32": 2447, "1_16": 2368, "1_8": 2210},
    "coco/unimatch": {"1_512": 14757, "1_256": 14728, "1_128": 14670, "1_64": 14555, "1_32": 14324},
}


@pytest.mark.parametrize("name", STEPS)
def test_an_epoch_has_the_published_steps(resolved, name):
    data, host = name.split("/")
    epochs = {"voc": 80, "cityscapes": 200 if host in ("u2pl", "ael") else 240, "coco": 30}.get(data)
    epochs = 60 if host == "unimatch_v2" else epochs
    period = {"voc/supervised": 4, "cityscapes/supervised": 12}.get(name, 1)
    for split, steps in STEPS[name].items():
        cfg = resolved(name, "DATASETS.SPLIT", split)
        assert (f"{data}_{split}_labeled",) == cfg.DATASETS.TRAIN
        assert (() if host == "supervised" else (f"{data}_{split}_unlabeled",)) == cfg.DATASETS.UNLABELED
        assert (epochs * steps, period * steps) == (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD)
        assert cfg.SOLVER.CHECKPOINT_PERIOD == cfg.TEST.EVAL_PERIOD
        # The teacher is a copy of the student through AugSeg's and U2PL's first epoch; U2PL's on VOC is supervised.
        assert (steps if host in ("augseg", "u2pl") else 0) == cfg.FRAMEWORK.EMA_COPY_STEPS
        assert (steps if name == "voc/u2pl" else 0) == cfg.FRAMEWORK.BURN_IN


# Steps of an epoch, and of a burn-in of five epochs of the labeled images, counted by hand as above.
PSMT = {
    "voc/ps_mt": (80, {"92": (327, 10)}),
    "voc/ps_mt_blender": (80, {"1_16": (310, 100), "u2pl_1_16": (310, 100)}),
    "cityscapes/ps_mt": (320, {"1_8": (325, 230)}),
}


@pytest.mark.parametrize("name", PSMT)
def test_turns_and_ramp_of_ps_mt_have_the_published_epochs(resolved, name):
    epochs, splits = PSMT[name]
    for split, (steps, burn_in) in splits.items():
        cfg = resolved(name, "DATASETS.SPLIT", split)
        keys = cfg.FRAMEWORK.PSMT
        assert (epochs * steps, steps, 12 * steps) == (cfg.SOLVER.MAX_ITER, keys.TURN_STEPS, keys.RAMP_STEPS)
        assert (burn_in, True) == (cfg.FRAMEWORK.BURN_IN, cfg.INPUT.STRONG.LABELED)


HOSTS = {
    "unimatch": ("voc/unimatch", "cityscapes/unimatch", "coco/unimatch"),
    "augseg": ("voc/augseg", "cityscapes/augseg"),
    "u2pl": ("voc/u2pl", "cityscapes/u2pl"),
    "ael": ("voc/ael", "cityscapes/ael"),
}
# A value for each preset of the host, in the order above; or one for all.
PUBLISHED = {
    "FRAMEWORK.NAME": ("UniMatch", "AugSeg", "U2PL", "AEL"),
    "FRAMEWORK.ALPHA": (1.0, 1.0, 1.0, 1.0),
    "FRAMEWORK.THRESHOLD": ([0.95, 0.0, 0.95], [0.95, 0.0], 0.0, [0.7, 0.0]),
    "FRAMEWORK.EMA_DECAY": (0.999, [0.999, 0.996], 0.99, 0.99),
    "FRAMEWORK.EMA_BUFFERS": ("ema", "ema", "none", "none"),
    "FRAMEWORK.CUTMIX.PROB": (0.5, 0.5, 0.5, 0.5),
    "FRAMEWORK.OHEM.ENABLED": ([False, True, False], [False, True], [False, True], True),
    "FRAMEWORK.OHEM.THRESHOLD": (0.7, 0.7, 0.7, 0.7),
    "FRAMEWORK.OHEM.MIN_KEPT": ([100_000, 200_000, 100_000], 100_000, 100_000, 100_000),
    "INPUT.CROP_SIZE": (
        [(321, 321), (801, 801), (513, 513)],
        *([(513, 513), (side, side)] for side in (800, 769, 769)),
    ),
    "INPUT.SCALE_RANGE": ((0.5, 2.0), (0.5, 2.0), (0.5, 2.0), (0.5, 2.0)),
    "INPUT.SCALE_BALANCED": (False, False, True, True),
    "INPUT.SCALE_BASE": (0, [500, 0], 0, 0),
    "INPUT.RESIZE": ("antialias", "antialias", "bilinear", "bilinear"),
    "INPUT.STRONG.KIND": ("jitter", "intensity", "jitter", "jitter"),
    "INPUT.STRONG.VIEWS": (2, 1, 1, 0),
    "INPUT.STRONG.MAX_OPERATIONS": (3, 3, 3, 3),
    "INPUT.STRONG.JITTER": 4 * ((0.5, 0.5, 0.5, 0.25),),
    "INPUT.STRONG.BLUR_SIGMA": ((0.1, 2.0), (0.1, 2.0), (0.1, 2.0), (0.1, 2.0)),
    "INPUT.STRONG.JITTER_PROB": (0.8, 0.8, 0.0, 0.8),
    "INPUT.STRONG.GRAY_PROB": (0.2, 0.2, 0.0, 0.2),
    "INPUT.STRONG.BLUR_PROB": (0.5, 0.5, 0.0, 0.5),
    "INPUT.PASTE.PROB": (0.0, 0.0, 0.0, 0.5),
    "MODEL.WEIGHTS": (
        [*2 * ["detectron2://DeepLab/R-103.pkl"], "timm://xception65.tf_in1k"],
        *3 * ("detectron2://DeepLab/R-103.pkl",),
    ),
    "MODEL.RESNETS.DEPTH": ([101, 101, 50], 101, 101, 101),
    "MODEL.RESNETS.STEM_TYPE": ("deeplab", "deeplab_ceil", "deeplab_ceil", "deeplab_ceil"),
    "MODEL.RESNETS.RES5_BLOCK_DILATIONS": ((1, 2, 2), (2, 4, 8), (4, 8, 16), (4, 8, 16)),
    "MODEL.BACKBONE.OUTPUT_STRIDE": (16, 16, 8, 8),
    "MODEL.BACKBONE.FREEZE_AT": (0, 0, 0, 0),
    "MODEL.AUX_HEAD.ENABLED": (False, False, [False, True], True),
    "MODEL.AUX_HEAD.IN_FEATURE": ("res4", "res4", "res4", "res4"),
    "MODEL.AUX_HEAD.LOSS_WEIGHT": (0.4, 0.4, 0.4, 0.4),
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": ((6, 12, 18), (6, 12, 18), (12, 24, 36), (12, 24, 36)),
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": (0.0, 0.0, 0.0, 0.0),
    "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM": (True, True, True, True),
    "MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL": (1, 1, 3, 3),
    "MODEL.SEM_SEG_HEAD.BIASED_CONVS": ((), ("project",), ("project", "fuse"), ("project", "fuse")),
    "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT": (0.0, 0.0, 0.1, 0.1),
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": ((48,), (48,), (256,), (256,)),
    "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM": (0, 0, 256, 0),
    "MODEL.SEM_SEG_HEAD.INIT": ("pytorch", "pytorch", "pytorch", "pytorch"),
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": (True, True, True, True),
    "SOLVER.IMS_PER_BATCH": (8, 16, 16, 16),
    "SOLVER.UNLABELED_IMS_PER_BATCH": (8, 16, 16, 8),
    "SOLVER.REFERENCE_IMS_PER_BATCH": (8, 16, 16, 16),
    "SOLVER.BASE_LR": ([0.001, 0.005, 0.004], [0.001, 0.01], [0.001, 0.01], 0.01),
    "SOLVER.HEAD_LR_FACTOR": ([10.0, 1.0, 10.0], [10.0, 1.0], [10.0, 1.0], 10.0),
    "SOLVER.WEIGHT_DECAY": (1e-4, [1e-4, 5e-4], [1e-4, 5e-4], 1e-4),
    "SOLVER.MOMENTUM": (0.9, 0.9, 0.9, 0.9),
    "SOLVER.POLY_LR_POWER": (0.9, 0.9, 0.9, 0.9),
    "SOLVER.WARMUP_ITERS": (0, 0, 0, 0),
    "TEST.INFERENCE.MODE": (["whole", "slide", "whole"], ["whole", "slide"], ["crop", "slide"], ["crop", "slide"]),
    "TEST.INFERENCE.JUDGE_PADDING": (False, False, False, False),
    "WEIGHTING.NORM": ("valid", "valid", "valid", "weight_sum"),
    # COCO's is not published.
    "RPPI.BOX_SCORE": ([0.85, 0.95, 0.85], [0.85, 0.95], [0.85, 0.95], [0.85, 0.95]),
}
# Window, step of the window, what becomes of windows that leave the image, and what is averaged.
WINDOWS = {
    "cityscapes/unimatch": (801, 534, "truncate", "probability"),
    "cityscapes/augseg": (800, 533, "truncate", "probability"),
    "cityscapes/u2pl": (769, 513, "shift", "logit"),
    "cityscapes/ael": (769, 513, "shift", "probability"),
}
OF_ONE_HOST = {
    "unimatch": {"FEATURE_DROPOUT": 0.5, "CUTMIX.AREA": (0.02, 0.4)},
    "augseg": {"AUGSEG.INJECTION": True},
    "u2pl": {
        **{"U2PL.UNRELIABLE": 20.0, "U2PL.CONTRAST_WEIGHT": 1.0, "U2PL.TEMPERATURE": 0.5, "U2PL.ANCHORS": 256},
        **{"U2PL.NEGATIVES": 50, "U2PL.ANCHOR_PROB": 0.3, "U2PL.NEGATIVE_RANKS": (3, 20)},
        **{"U2PL.QUEUE_SIZE": 30_000, "U2PL.QUEUE_SIZE_FIRST": 50_000},
    },
    "ael": {"AEL.MOMENTUM": 0.999},
}
# Classes that a step pastes and those that it never does, and two shares of an image; see FRAMEWORK.AEL. Published:
# Cityscapes' head classes on VOC too, and so neither background nor aeroplane, bicycle, cat and cow.
AEL = {"voc/ael": (1, (0,), 0.03, 0.03), "cityscapes/ael": (3, (0, 1, 2, 8, 10), 0.01, 0.005)}


@pytest.mark.parametrize("host", HOSTS)
def test_presets_have_the_published_settings(host):
    column = list(HOSTS).index(host)
    for place, name in enumerate(HOSTS[host]):
        cfg = load_cfg(PRESETS[name])
        for key, values in PUBLISHED.items():
            value, found = values[column], value_of(cfg, key)
            expected = value[place] if isinstance(value, list) else value
            assert (tuple(found) if isinstance(found, list) else found) == expected, (name, key)
        for key, expected in OF_ONE_HOST[host].items():
            assert value_of(cfg.FRAMEWORK, key) == expected, (name, key)
        test = cfg.TEST.INFERENCE
        if test.MODE == "slide":
            window, stride, border, average = WINDOWS[name]
            assert ((window, window), (stride, stride)) == (test.CROP_SIZE, test.STRIDE)
            assert (border, average) == (test.BORDER, test.AVERAGE)
        if test.MODE == "crop":
            assert test.CROP_SIZE == (513, 513)
        if host == "ael":
            keys = ("PASTE_CLASSES", "HEAD_CLASSES", "PRESENCE_AREA", "COMPONENT_AREA")
            assert tuple(cfg.FRAMEWORK.AEL[key] for key in keys) == AEL[name]
            assert cfg.INPUT.PASTE.SCALE_RANGE == (0.1, 2.0)


@pytest.mark.parametrize("data", ["voc", "cityscapes"])
def test_st_plus_plus_has_its_published_settings(data):
    cfg = load_cfg(PRESETS[f"{data}/st_plus_plus"])
    model, keys, solver = cfg.MODEL, cfg.FRAMEWORK.ST_PLUS_PLUS, cfg.SOLVER
    crop, base, rate = {"voc": ((321, 321), 400, 0.001), "cityscapes": ((721, 721), 0, 0.004)}[data]
    assert (crop, base, rate) == (cfg.INPUT.CROP_SIZE, cfg.INPUT.SCALE_BASE, solver.BASE_LR)
    assert (cfg.INPUT.SCALE_RANGE, cfg.INPUT.RESIZE) == ((0.5, 2.0), "antialias")
    assert (solver.IMS_PER_BATCH + solver.UNLABELED_IMS_PER_BATCH, solver.HEAD_LR_FACTOR) == (16, 10.0)
    assert (solver.WEIGHT_DECAY, solver.POLY_LR_POWER, solver.OPTIMIZER) == (1e-4, 0.9, "SGD")
    assert (model.RESNETS.STEM_TYPE, model.BACKBONE.OUTPUT_STRIDE, model.WEIGHTS) == (
        "basic",
        8,
        "torchvision://resnet101",
    )
    assert tuple(model.RESNETS.RES5_BLOCK_DILATIONS) == (2, 4, 4)
    assert tuple(model.SEM_SEG_HEAD.ASPP_DILATIONS) == (12, 24, 36)
    strong = cfg.INPUT.STRONG
    assert (strong.JITTER, strong.JITTER_PROB, strong.GRAY_PROB, strong.BLUR_PROB) == (
        (0.5, 0.5, 0.5, 0.25),
        0.8,
        0.2,
        0.5,
    )
    assert (keys.CUTOUT.PROB, keys.CUTOUT.AREA, keys.CUTOUT.RATIO) == (0.5, (0.02, 0.4), (0.3, 1 / 0.3))
    assert (keys.SELECTIVE, keys.RELIABLE, keys.LABELER, keys.SCALES) == (True, 0.5, "best", (0.5, 0.75, 1.0, 1.5, 2.0))
    assert (cfg.TEST.INFERENCE.MODE, cfg.TEST.INFERENCE.FLIP) == ("whole", False)


@pytest.mark.parametrize("data", ["voc", "cityscapes"])
def test_corrmatch_differs_from_unimatch_as_published(data):
    changed = {
        **{"FRAMEWORK.NAME": "CorrMatch", "FRAMEWORK.THRESHOLD": 0.85, "INPUT.STRONG.VIEWS": 1},
        **{"MODEL.METHOD_HEAD.NAME": "CorrelationHead", "MODEL.BACKBONE.OUTPUT_STRIDE": 8},
        **{"MODEL.RESNETS.RES5_BLOCK_DILATIONS": (2, 4, 4), "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [12, 24, 36]},
        **dict.fromkeys(
            ["SOLVER.IMS_PER_BATCH", "SOLVER.UNLABELED_IMS_PER_BATCH", "SOLVER.REFERENCE_IMS_PER_BATCH"], 16
        ),
    }
    cfg = load_cfg(PRESETS[f"{data}/corrmatch"])
    assert differing_keys(f"{data}/corrmatch", f"{data}/unimatch") == changed.keys()
    assert {key: value_of(cfg, key) for key in changed} == changed
    assert (cfg.FRAMEWORK.CORRMATCH.REGIONS, cfg.FRAMEWORK.CORRMATCH.MOMENTUM) == (128, 0.999)


@pytest.mark.parametrize("data", ["voc", "cityscapes"])
def test_allspark_differs_from_unimatch_as_published(resolved, data):
    crop, epochs = {"voc": ((513, 513), 5), "cityscapes": ((801, 801), 15)}[data]
    changed = {
        **{"FRAMEWORK.NAME": "AllSpark", "FRAMEWORK.ALLSPARK.MEMORY_AFTER_EPOCHS": epochs},
        **{"INPUT.STRONG.VIEWS": 0, "INPUT.STRONG.LABELED": True, "MODEL.WEIGHTS": "mit_b5.pth"},
        **{"MODEL.BACKBONE.NAME": "build_timm_backbone", "MODEL.BACKBONE.OUTPUT_STRIDE": 32},
        **{"MODEL.TIMM.NAME": "mit_b5", "MODEL.SEM_SEG_HEAD.NAME": "AllSparkHead"},
        **{"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"], "MODEL.SEM_SEG_HEAD.CONVS_DIM": 768},
        **{"MODEL.SEM_SEG_HEAD.DECODER_DROPOUT": 0.1, "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": False},
    }
    # As far as a decoder has them that both do not share.
    other = {f"MODEL.SEM_SEG_HEAD.{key}" for key in ("ASPP_POOL_NORM", "INIT")} | {"MODEL.RESNETS.DEPTH"}
    other |= {"MODEL.RESNETS.RES5_BLOCK_DILATIONS"}
    if data == "voc":
        changed |= {"INPUT.CROP_SIZE": crop, "FRAMEWORK.THRESHOLD": 0.0}
    cfg = load_cfg(PRESETS[f"{data}/allspark"])
    assert differing_keys(f"{data}/allspark", f"{data}/unimatch") - other == changed.keys()
    assert {key: value_of(cfg, key) for key in changed} == changed
    assert crop == cfg.INPUT.CROP_SIZE
    steps = STEPS[f"{data}/allspark"]["1_16"]
    cfg = resolved(f"{data}/allspark", "DATASETS.SPLIT", "1_16")
    assert epochs * steps == cfg.FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS


def test_unimatch_on_coco_has_its_own_xception():
    model = load_cfg(PRESETS["coco/unimatch"]).MODEL
    assert (model.BACKBONE.NAME, model.TIMM.NAME) == ("build_xception_backbone", "xception65")
    assert (model.TIMM.BN_MOMENTUM, model.TIMM.BN_EPS, model.XCEPTION.RECTIFIED_SHORTCUTS) == (3e-4, 1e-5, True)


def test_semivl_has_its_own_rates_phrases_and_windows():
    voc, cityscapes = (load_cfg(PRESETS[f"{data}/semivl"]) for data in ("voc", "cityscapes"))
    for cfg, rates in ((voc, (1e-6, 1e-3)), (cityscapes, (5e-6, 5e-4))):
        solver = cfg.SOLVER
        assert pytest.approx(rates) == (solver.BASE_LR, solver.BASE_LR * solver.HEAD_LR_FACTOR)
        assert (solver.OPTIMIZER, solver.WEIGHT_DECAY, solver.IMS_PER_BATCH) == ("AdamW", 0.01, 8)
        assert (cfg.FRAMEWORK.SEMIVL.GUIDANCE_WEIGHT, cfg.FRAMEWORK.SEMIVL.GUIDANCE_CONF) == (0.1, 0.9)
        assert (cfg.MODEL.MASKCLIP.DIM, cfg.FRAMEWORK.SEMIVL.WEIGHTED) == (512, ("guidance",))
    assert (voc.FRAMEWORK.THRESHOLD, voc.FRAMEWORK.SEMIVL.CONFIDENCE) == (0.95, "threshold")
    assert (cityscapes.FRAMEWORK.THRESHOLD, cityscapes.FRAMEWORK.SEMIVL.CONFIDENCE) == (0.0, "mean")
    assert cityscapes.SOLVER.MAX_ITER == 83_760
    assert (voc.INPUT.SCALE_BASE, voc.INPUT.SCALE_SIDE, voc.TEST.INFERENCE.SHORTER_SIDE) == (512, "shorter", 512)
    # The published lists have 98 and 54 phrases.
    assert [sum(map(len, vlg)) for vlg in (voc.MODEL.VLG.TEXTS, voc.MODEL.VLG.CONCEPTS)] == [21, 98]
    assert sum(map(len, cityscapes.MODEL.VLG.TEXTS)) == 54


def differing_keys(*names):
    """The keys in which two presets differ, but for the folder that they write to."""
    first, second = (load_cfg(PRESETS[name]) for name in names)
    return {key for key in leaf_keys(first) if value_of(first, key) != value_of(second, key)} - {"OUTPUT_DIR"}


WEIGHTED = {
    "_ppw": {"WEIGHTING.ENABLED"},
    "_wpl": {"WEIGHTING.ENABLED", "RPPI.ENABLED", "MODEL.DETECTOR.MODE"},
    "_wpl_cached": {"WEIGHTING.ENABLED", "RPPI.ENABLED", "MODEL.DETECTOR.MODE", "MODEL.DETECTOR.CACHE"},
}
TWINS = [(name, suffix) for name in PRESETS for suffix in WEIGHTED if name.endswith(suffix)]


@pytest.mark.parametrize(("name", "suffix"), TWINS)
def test_twins_differ_by_weighting_and_detector_alone(name, suffix):
    assert differing_keys(name.removesuffix(suffix), name) == WEIGHTED[suffix]


def test_every_published_host_has_a_weighted_twin():
    plain = {name for names in HOSTS.values() for name in names} | {"voc/unimatch_blender", "voc/mean_teacher"}
    assert {(f"{name}_wpl", "_wpl") for name in plain} <= set(TWINS)


@pytest.mark.parametrize("data", ["voc_animals", "nyuv2"])
def test_what_a_host_has_to_beat_has_its_schedule(data):
    host, averaged, plain = (f"{data}/{name}" for name in ("mean_teacher", "supervised_ema", "supervised"))
    assert differing_keys(averaged, plain) == {"FRAMEWORK.NAME"}
    assert differing_keys(host, averaged) == {"FRAMEWORK.NAME", "DATASETS.UNLABELED"}


def test_presets_on_unimatchs_schedule_differ_from_it_by_what_they_are():
    assert differing_keys("voc/unimatch", "voc/mean_teacher") == {"FRAMEWORK.NAME", "INPUT.STRONG.VIEWS"}
    for blender in ("unimatch", "supervised"):
        lists = {"DATASETS.TRAIN"} | ({"DATASETS.UNLABELED"} if blender == "unimatch" else set())
        assert differing_keys(f"voc/{blender}", f"voc/{blender}_blender") == {"INPUT.CROP_SIZE", *lists}
        assert load_cfg(PRESETS[f"voc/{blender}_blender"]).INPUT.CROP_SIZE == (513, 513)
    assert differing_keys("voc_1_16", "voc/unimatch_wpl") == set()
    assert load_cfg(PRESETS["voc_1_16"]).DATASETS.TRAIN == ("voc_92_labeled",)


@pytest.mark.parametrize("host", ["camvid/mean_teacher", "camvid/unimatch"])
def test_the_official_weighting_is_that_of_the_published_code(host):
    keys = ("K", "WEIGHT_FORM", "NORM", "TOPK_RES", "UNLAB_VIEW", "LABELED_FROM", "MIN_COUNT")
    assert differing_keys(f"{host}_wpl", f"{host}_wpl_official") == {
        *("FRAMEWORK.ALPHA", "RPPI.BOX_SCORE"),
        *(f"WEIGHTING.{key}" for key in keys),
    }
    cfg = load_cfg(PRESETS[f"{host}_wpl_official"])
    assert (cfg.FRAMEWORK.ALPHA, cfg.RPPI.BOX_SCORE, cfg.RPPI.CONF) == (1.0, 0.95, 0.95)
    assert [cfg.WEIGHTING[key] for key in keys] == [5, "plus_one", "weight_sum", "full", "strong", "student", 1]
