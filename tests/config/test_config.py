"""What users write in configs, wrong in all likely ways: each is refused with the file or key, and how to mend it."""

import logging
from pathlib import Path

import pytest
from helpers import SMALL

from wpl_d2.config import get_cfg, load_cfg, reference
from wpl_d2.config.config import leaf_keys
from wpl_d2.config.keys import KEYS, RENAMED, RENAMED_VALUES, UNUSED
from wpl_d2.config.validation import check_config, warn_unused
from wpl_d2.modeling import build_model
from wpl_d2.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

FITTING = [
    ("FRAMEWORK.ALPHA", "1", 1.0),
    ("SOLVER.BASE_LR", 1, 1.0),
    ("SOLVER.BASE_LR", "1e-3", 0.001),
    ("SOLVER.MAX_ITER", "7", 7),
    ("INPUT.CROP_SIZE", "[64, 96]", (64, 96)),
    ("DATASETS.TRAIN", "('a_labeled',)", ("a_labeled",)),
    ("DATASETS.TEST", "a_val", ("a_val",)),
    ("DATASETS.TEST", "a_val, b_val", ("a_val", "b_val")),
    ("SOLVER.WEIGHT_DECAY_NORM", "0.0", 0.0),
    ("WEIGHTING.KIND", "rank_margin", ("rank_margin",)),
    ("WEIGHTING.KIND", "[rank, object]", ("rank", "object")),
    ("WEIGHTING.KIND", "('knn_margin',)", ("knn_margin",)),
    ("MODEL.WEIGHTS", "path/of.pth", "path/of.pth"),
]


@pytest.mark.parametrize(("key", "given", "value"), FITTING)
def test_what_fits_is_taken_with_the_type_of_the_key(tmp_path, key, given, value):
    file = tmp_path / "config.yaml"
    *path, name = key.split(".")
    file.write_text("".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(path)) + f"    {name}: {given}\n")
    for cfg in (load_cfg("", [key, given]), load_cfg(str(file))):
        for part in path:
            cfg = cfg[part]
        assert cfg[name] == value and type(cfg[name]) is type(value)


WRONG = [
    ("INPUT.CROP_SIZE", "321", 'INPUT.CROP_SIZE cannot be 321 of type int; give it several .* "(321, 321)"'),
    ("DATASETS.TRAIN", "3", "DATASETS.TRAIN cannot be 3 of type int"),
    ("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "48", 'such as "[48]"'),
    ("WEIGHTING.ENABLED", "true", "WEIGHTING.ENABLED cannot be 'true' of type str; give it True or False"),
    ("SOLVER.MAX_ITER", "1000.0", "SOLVER.MAX_ITER cannot be 1000.0 of type float; give it a whole number"),
    ("SOLVER.BASE_LR", "fast", "SOLVER.BASE_LR cannot be 'fast' of type str; give it a number"),
    ("OUTPUT_DIR", "True", "OUTPUT_DIR cannot be True of type bool; give it text, in quotes: 'True'"),
    ("WEIGHTING.KIND", "3", "WEIGHTING.KIND cannot be 3 of type int"),
    ("WEIGHTING.SIMILARITY", "cosine", "WEIGHTING.SIMILARITY is now WEIGHTING.KIND; write that"),
    ("SOLVER.PICTURE_PERIOD", "9", "SOLVER.PICTURE_PERIOD is now VIS_PERIOD; write that"),
    ("WEIGHTING.LABELED_FROM", "labeler", "WEIGHTING.LABELED_FROM labeler is now teacher; write that"),
    ("WEIGHTING.POWER", "0", "WEIGHTING.POWER: 0.0 is out of its range; give a number above 0"),
    ("WEIGHTING.MOMENTUM", "2", "WEIGHTING.MOMENTUM: 2.0 is out of its range; give a number from 0 to 1"),
    ("WEIGHTING", "3", "WEIGHTING is a section; set keys of it, such as WEIGHTING.ENABLED"),
    ("SOLVER.MAX_ITER.X", "3", "no config key SOLVER.MAX_ITER.X; did you mean SOLVER.MAX_ITER"),
    ("FRAMEWORK.THRESHOLD", "95.0", "FRAMEWORK.THRESHOLD: 95.0 is out of its range; give a number from 0 to 1"),
    ("RPPI.BOX_SCORE", "85.0", "RPPI.BOX_SCORE: 85.0 is out of its range; give a number from 0 to 1"),
    ("FRAMEWORK.CUTMIX.PROB", "1.01", "FRAMEWORK.CUTMIX.PROB: 1.01 is out of its range; give a number from 0 to 1"),
    ("FRAMEWORK.EMA_DECAY", "-0.1", "FRAMEWORK.EMA_DECAY: -0.1 is out of its range; give a number from 0 to 1"),
    ("FRAMEWORK.AEL.MOMENTUM", "1.5", "MOMENTUM: 1.5 is out of its range; give a number from 0 to 1"),
    ("INPUT.PASTE.PROB", "1.5", "INPUT.PASTE.PROB: 1.5 is out of its range; give a number from 0 to 1"),
    ("INPUT.CROP_SIZE", "(192,)", "INPUT.CROP_SIZE: (192,) is out of its range; give (height, width)"),
    ("INPUT.CROP_SIZE", "(192, 192, 3)", "give (height, width) in pixels"),
    ("INPUT.CROP_SIZE", "(0, 192)", "give (height, width) in pixels"),
    ("INPUT.SCALE_RANGE", "(2.0, 0.5)", "INPUT.SCALE_RANGE: (2.0, 0.5) is out of its range; give (lowest, highest)"),
    ("INPUT.SCALE_RANGE", "('a', 2.0)", "give (lowest, highest)"),
    ("INPUT.STRONG.JITTER", "(0.5, 0.5)", "INPUT.STRONG.JITTER: .* give brightness, contrast, saturation and hue"),
    ("INPUT.STRONG.JITTER", "(0.5, 0.5, 0.5, 0.6)", "hue up to 0.5"),
    ("INPUT.STRONG.BLUR_SIGMA", "(2.0, 0.1)", "INPUT.STRONG.BLUR_SIGMA: .* give (lowest, highest)"),
    ("FRAMEWORK.CUTMIX.AREA", "(2, 4)", "FRAMEWORK.CUTMIX.AREA: (2, 4) .* above 0 and up to 1"),
    ("SOLVER.MAX_ITER", "0", "SOLVER.MAX_ITER: 0 is out of its range; give a whole number, 1 or more"),
    ("FRAMEWORK.BURN_IN", "-1", "FRAMEWORK.BURN_IN: -1 is out of its range; give a whole number, 0 or more"),
    ("DATALOADER.NUM_WORKERS", "-1", "DATALOADER.NUM_WORKERS: -1 is out of its range; give a whole number, 0 or more"),
    ("DATALOADER.CACHE", "rma", "DATALOADER.CACHE: 'rma' is not known; did you mean ram"),
    ("DATALOADER.CACHE_GB", "0", "DATALOADER.CACHE_GB: 0.0 is out of its range; give a number above 0"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norms", "CLIP_TYPE: 'norms' is not known; did you mean norm"),
    (
        "SOLVER.CHECKPOINTS_TO_KEEP",
        "0",
        "SOLVER.CHECKPOINTS_TO_KEEP: 0 is out of its range; give a whole number, 1 or more",
    ),
    ("DATASETS.MIN_BOX_AREA", "-5", "DATASETS.MIN_BOX_AREA: -5 is out of its range; give a whole number, 0 or more"),
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupPoly", "'WarmupPoly' is not known; did you mean WarmupPolyLR"),
    (
        "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT",
        "10",
        "DECODER_DROPOUT: 10.0 is out of its range; give a number from 0",
    ),
    ("MODEL.AUX_HEAD.DROPOUT", "-0.1", "DROPOUT: -0.1 is out of its range; give a number from 0 to 1"),
    ("MODEL.TIMM.BN_MOMENTUM", "3", "MODEL.TIMM.BN_MOMENTUM: 3.0 is out of its range; give a number from 0 to 1"),
    ("MODEL.TIMM.BN_EPS", "-1e-5", "MODEL.TIMM.BN_EPS: -1e-05 is out of its range; give a number, 0 or more"),
    (
        "MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL",
        "2",
        "ASPP_FUSE_KERNEL: 2 is out of its range; give 1, 3 or another odd",
    ),
    ("MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL", "-1", "ASPP_FUSE_KERNEL: -1 is out of its range; give 1, 3 or"),
    ("MODEL.SEM_SEG_HEAD.BIASED_CONVS", "project", "BIASED_CONVS cannot be 'project' .*; give .* \"('project',)\""),
    ("MODEL.SEM_SEG_HEAD.EMBEDDING_DROPOUT", "0.1", "EMBEDDING_DROPOUT; did you mean .*DECODER_DROPOUT"),
    ("MODEL.RESNETS.NORM", "frozenBN", "MODEL.RESNETS.NORM: 'frozenBN' is not known; did you mean FrozenBN"),
    ("FRAMEWORK.U2PL.NEGATIVES", "0", "FRAMEWORK.U2PL.NEGATIVES: 0 is out of its range; give a whole number, 1"),
    ("FRAMEWORK.U2PL.TEMPERATURE", "0", "FRAMEWORK.U2PL.TEMPERATURE: 0.0 is out of its range; give a number above 0"),
    ("FRAMEWORK.U2PL.UNRELIABLE", "50", "FRAMEWORK.U2PL.UNRELIABLE: 50.0 is out of its range; give percent, from 0 to"),
    ("FRAMEWORK.U2PL.NEGATIVE_RANKS", "(3, 20, 30)", "NEGATIVE_RANKS: (3, 20, 30) is out of its range; give a rank"),
    ("FRAMEWORK.U2PL.NEGATIVE_RANKS", "(20, 3)", "NEGATIVE_RANKS: (20, 3) is out of its range; give a rank from 0 on"),
    ("FRAMEWORK.U2PL.NEGATIVE_RANKS", "(-1, 3)", "NEGATIVE_RANKS: (-1, 3) is out of its range; give a rank from 0 on"),
    ("FRAMEWORK.AEL.PASTE_CLASSES", "0", "PASTE_CLASSES: 0 is out of its range; give a whole number, 1 or more"),
    ("SOLVER.OPTIMIZER", "Adam", "SOLVER.OPTIMIZER: 'Adam' is not known; did you mean AdamW"),
    ("SOLVER.AMP.DTYPE", "float8", "SOLVER.AMP.DTYPE: 'float8' is not known; did you mean float16"),
    ("INPUT.FORMAT", "BGR", "INPUT.FORMAT: 'BGR' is not known"),
    ("MODEL.PIXEL_MEAN", "['a']", "MODEL.PIXEL_MEAN: ['a'] is out of its range; give numbers"),
    ("INPUT.VALUE_RANGE", "[[5, 1]]", "INPUT.VALUE_RANGE: ([5, 1],) is out of its range; give pairs (black, white)"),
    ("MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS: GN has 32 groups, into which [48]"),
]


def pattern(message):
    """A message as a regular expression in which `.*` alone is special."""
    for special in "()[]?":
        message = message.replace(special, "\\" + special)
    return message


@pytest.mark.parametrize(("key", "given", "message"), WRONG)
def test_what_does_not_fit_is_refused_in_words(key, given, message):
    with pytest.raises(InputError, match=pattern(message)):
        load_cfg("", [key, given])


ALONE = ["MODEL.META_ARCHITECTURE", "FPNDetector", "MODEL.DETECTOR.MODE", "alone", "MODEL.BACKBONE.OUTPUT_STRIDE", "32"]
CONTRADICTIONS = [
    ([*ALONE, "TEST.PSEUDO_LABELS", "('a',)"], "TEST.PSEUDO_LABELS: a detector alone labels no pixels; leave it empty"),
    (["RPPI.ENABLED", "True"], "RPPI.ENABLED: there is no detector to agree with; set MODEL.DETECTOR.MODE"),
    (["WEIGHTING.ENABLED", "True", "WEIGHTING.LABELED_CONF", "1"], "WEIGHTING.LABELED_CONF: no confidence is above 1,"),
    (["WEIGHTING.ENABLED", "True", "WEIGHTING.MIN_COUNT", "300"], "never holds 300 embeddings of a class; .* most 256"),
    (
        ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"],
        "SOLVER.AMP.DTYPE: float16 needs a GPU; take bfloat16",
    ),
]


@pytest.mark.parametrize(("opts", "message"), CONTRADICTIONS)
def test_keys_that_contradict_each_other_name_the_mend(opts, message):
    with pytest.raises(InputError, match=pattern(message)):
        load_cfg("", opts)


@pytest.mark.parametrize(("value", "key"), [(321, "INPUT.CROP_SIZE"), ("1", "SOLVER.MAX_ITER"), (3, "INPUT.RESIZE")])
def test_values_of_another_type_that_code_sets_are_refused_too(value, key):
    cfg = get_cfg()
    section, name = key.split(".")
    cfg[section][name] = value
    with pytest.raises(InputError, match=f"^{key}: "):
        check_config(cfg)


def test_a_renamed_key_is_an_error_of_detectron2s_own_methods_too():
    with pytest.raises(KeyError, match=r"SOLVER\.PICTURE_PERIOD was renamed to VIS_PERIOD"):
        get_cfg().merge_from_list(["SOLVER.PICTURE_PERIOD", 9])


def test_the_tables_of_keys_agree_with_the_config_and_each_other():
    check_config(get_cfg())
    known, names = set(leaf_keys(get_cfg())), [key.name for key in KEYS]
    assert len(set(names)) == len(names)
    assert {*RENAMED.values(), *RENAMED_VALUES, *UNUSED} <= known
    assert not known & RENAMED.keys()
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == names
    row = "| `FRAMEWORK.BURN_IN` | `0` | a whole number, 0 or more | Steps of supervised training before the first"
    assert any(line.startswith(row) for line in rows) and all(line.count("|") == 5 for line in rows)


FILES = [
    ("{", "config.yaml: is not YAML"),
    ("- a\n- b\n", "config.yaml: is not a mapping of keys to values; see configs/quickstart.yaml"),
    ("", "config.yaml: is not a mapping of keys to values"),
    ("_BASE_: nowhere.yaml\n", "nowhere.yaml: No such file"),
    ("_BASE_: config.yaml\n", "config.yaml: its _BASE_ config.yaml has it as _BASE_ in turn"),
    ("_BASE_: list.yaml\nSEED: 1\n", "list.yaml: is not a mapping"),
    ("SEED: !!python/object/apply:os.getcwd []\n", "without YAML tags, which can run code"),
    ("OUTPUT_DIR: 2024\n", "config.yaml: OUTPUT_DIR cannot be 2024 of type int; give it text, in quotes: '2024'"),
    ("SOLVER:\n  MAX_ITERS: 3\n", "config.yaml: no config key SOLVER.MAX_ITERS; did you mean SOLVER.MAX_ITER"),
    ("SOLVER: 3\n", "config.yaml: SOLVER is a section"),
    ("INPUT:\n  CROP_SIZE: 321\n", "config.yaml: INPUT.CROP_SIZE cannot be 321"),
    ("classes: [a]\nlists: {val: val.txt}\n", "config.yaml: the key 'name' is missing; add it"),
    ("FRAMEWORK:\n  THRESHOLD: 95\n", "FRAMEWORK.THRESHOLD: 95.0 is out of its range"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_wrong_files_are_refused_in_words(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match=pattern(message)):
        load_cfg(str(tmp_path / "config.yaml"))


def test_a_key_that_is_given_twice_is_refused_in_bases_too(tmp_path):
    base, file = tmp_path / "base.yaml", tmp_path / "config.yaml"
    file.write_text("_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 5\nSOLVER:\n  BASE_LR: 0.1\n")
    base.write_text("SOLVER:\n  MAX_ITER: 7\n")
    with pytest.raises(
        InputError, match=r"config\.yaml, line 4: has the key 'SOLVER' a second time; keep one of the two"
    ):
        load_cfg(str(file))
    file.write_text("_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 5\n")
    assert load_cfg(str(file)).SOLVER.MAX_ITER == 5
    base.write_text("SOLVER:\n  MAX_ITER: 7\n  GAMMA: 0.1\n  MAX_ITER: 7\n")
    with pytest.raises(InputError, match=r"base\.yaml, line 4: has the key 'MAX_ITER' a second time"):
        load_cfg(str(file))


def test_a_missing_file_a_folder_and_a_checkpoint_are_no_configs(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    for name, message in (("none.yaml", "No such file"), ("", "Is a directory"), ("model.pth", "is not UTF-8 text")):
        with pytest.raises(InputError, match=message):
            load_cfg(str(tmp_path / name))


QUICKSTART, VOC = CONFIGS / "quickstart.yaml", CONFIGS / "voc_1_16.yaml"
OF_ANOTHER_BACKBONE = [
    (VOC, ["MODEL.TIMM.NAME", "resnet18"], "MODEL.TIMM.NAME has no effect on .* set .* build_timm_backbone"),
    (VOC, ["MODEL.TIMM.BN_MOMENTUM", "0.1"], "MODEL.TIMM.BN_MOMENTUM has no effect"),
    (QUICKSTART, ["MODEL.RESNETS.DEPTH", "50"], "MODEL.RESNETS.DEPTH has no effect on .* build_unified_resnet"),
    (QUICKSTART, ["MODEL.RESNETS.STEM_TYPE", "basic"], "MODEL.RESNETS.STEM_TYPE has no effect"),
    (QUICKSTART, ["MODEL.RESNETS.RES5_BLOCK_DILATIONS", "(1, 1, 1)"], ".*RES5_BLOCK_DILATIONS has no effect"),
]


@pytest.mark.parametrize(("config", "opts", "message"), OF_ANOTHER_BACKBONE)
def test_a_key_of_another_backbone_is_refused_on_the_command_line(config, opts, message):
    with pytest.raises(InputError, match=f"^overrides: {message}"):
        load_cfg(str(config), opts)


def test_a_key_comes_with_its_backbone_and_may_be_inherited_without_it():
    timm = ["MODEL.BACKBONE.NAME", "build_timm_backbone"]
    assert load_cfg(str(VOC), ["MODEL.TIMM.NAME", "resnet50", *timm]).MODEL.TIMM.NAME == "resnet50"
    load_cfg(str(QUICKSTART), ["MODEL.BACKBONE.NAME", "build_unified_resnet_backbone"])
    load_cfg(str(VOC), ["MODEL.TIMM.NAME", "resnet50", "MODEL.BACKBONE.NAME", "somebody_elses"])


@pytest.mark.parametrize(
    ("key", "value", "proposed"),
    [
        ("MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3PlusHead", "EmbeddingDeepLabV3PlusHead"),
        ("MODEL.BACKBONE.NAME", "build_tim_backbone", "build_timm_backbone"),
    ],
)
def test_parts_that_the_model_cannot_have_are_refused_with_the_nearest(key, value, proposed):
    cfg = load_cfg("", [*map(str, SMALL), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", key, value])
    with pytest.raises(InputError, match=f"{key}: '{value}' is not known; did you mean .*{proposed}"):
        build_model(cfg)


def test_keys_of_detectron2_without_effect_are_named_with_what_to_set_instead(caplog):
    cfg = load_cfg("", ["TEST.AUG.ENABLED", "True", "INPUT.MIN_SIZE_TRAIN", "(640,)", "SOLVER.MAX_ITER", "3"])
    with caplog.at_level(logging.WARNING):
        warn_unused(cfg, get_cfg())
    assert [record.getMessage() for record in caplog.records] == [
        "INPUT.MIN_SIZE_TRAIN: has no effect here; set INPUT.CROP_SIZE and INPUT.SCALE_RANGE",
        "TEST.AUG.ENABLED: has no effect here; set TEST.INFERENCE.FLIP and TEST.INFERENCE.SCALES",
    ]
