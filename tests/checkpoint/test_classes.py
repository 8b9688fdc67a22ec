import logging

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import SMALL, SMALL_DETECTOR, SMALL_FPN
from torch import nn

from wpl_d2 import build_framework, build_model
from wpl_d2.checkpoint import FrameworkCheckpointer, load_framework, load_initial_weights
from wpl_d2.checkpoint.classes import ClassNames, check_model_classes, check_same_classes, get_run_classes
from wpl_d2.checkpoint.metadata import build_metadata
from wpl_d2.data.datasets.folder import default_names
from wpl_d2.utils.errors import InputError

AUX = ["MODEL.AUX_HEAD.ENABLED", True]


def classes(names, objects=(), owner="the checkpoint"):
    return ClassNames(names.split(), objects, owner)


SAME = {
    "equal": (classes("a b c", (1, 2)), classes("a b c", (1, 2))),
    "no detector here": (classes("a b c", (1, 2)), classes("a b c")),
    "no detector there": (classes("a b c"), classes("a b c", (2, 1))),
    "no names here": (classes("a b"), ClassNames(default_names(2), (), "data")),
    "no names there": (ClassNames(default_names(2), (1,), "the checkpoint"), classes("a b", (1,))),
}
OTHER = {
    "order": ("a b c", (), "a c b", (), "x.pth: class 1 is 'b' in the checkpoint, but 'c' in data; use"),
    "name": ("a b", (), "a B", (), "x.pth: class 1 is 'b' in the checkpoint, but 'B' in data; use"),
    "fewer": (
        "a b c",
        (),
        "a b",
        (),
        "the checkpoint has 3 classes, the config 2: class 2 is 'c' in the checkpoint, but m",
    ),
    "more": (
        "a b",
        (),
        "a x b",
        (),
        "the checkpoint has 2 classes, the config 3: class 1 is 'b' in the checkpoint, but 'x'",
    ),
    "objects": ("a b c", (1, 2), "a b c", (2, 1), "the detector's class 0 is 'b' in the checkpoint, but 'c' in data"),
    "fewer objects": (
        "a b c",
        (1, 2),
        "a b c",
        (1,),
        "the detector's class 1 is 'c' in the checkpoint, but missing in",
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), SAME.values(), ids=SAME)
def test_the_same_classes_are_nothing_to_talk_about(ours, theirs):
    check_model_classes(ours, theirs, "x.pth")
    assert ours.difference(theirs) == theirs.difference(ours) == ""


@pytest.mark.parametrize(("names", "objects", "its_names", "its_objects", "message"), OTHER.values(), ids=OTHER)
def test_the_first_other_class_is_named(names, objects, its_names, its_objects, message):
    with pytest.raises(InputError) as error:
        check_model_classes(classes(names, objects), classes(its_names, its_objects, "data"), "x.pth")
    assert message in str(error.value)
    assert f"({names.replace(' ', ', ')})" in str(error.value) and "MODEL.MATCH_CLASSES" in str(error.value)


def test_numbers_and_objects_are_compared_without_names():
    nameless = ClassNames(default_names(3), (1, 2), "data")
    with pytest.raises(
        InputError, match=r"4 classes, the config 3: class 3 is 'class 3' in the checkpoint, but missing"
    ):
        check_model_classes(classes("a b c d"), nameless, "x.pth")
    with pytest.raises(
        InputError, match=r"the detector's class 0 is 'class 2' in the checkpoint, but 'class 1' in data"
    ):
        check_model_classes(classes("a b c", (2, 1)), nameless, "x.pth")


def test_a_long_list_of_classes_is_cut():
    names = " ".join(f"name{i}" for i in range(150))
    with pytest.raises(InputError, match=r"name11, \.\.\.\), or train"):
        check_model_classes(classes(names), classes(names.replace("name7 ", "x ")), "x.pth")


def register(name, names):
    DatasetCatalog.register(name, list)
    if names:
        MetadataCatalog.get(name).set(stuff_classes=names)
    return name


def test_a_runs_lists_have_the_same_classes(tree):
    cfg = tree.cfg()
    own = get_run_classes(cfg)
    assert (list(own.names), own.objects, own.owner) == (["ground", "box", "ball"], [], f"{tree.name}_labeled")
    swapped = register(f"{tree.name}_swapped", ["ground", "ball", "box"])
    nameless = register(f"{tree.name}_nameless", None)
    cfg.DATASETS.TEST = (nameless,)
    get_run_classes(cfg)
    for node, key in ((cfg.DATASETS, "TEST"), (cfg.TEST, "PSEUDO_LABELS")):
        node[key] = (swapped,)
        with pytest.raises(
            InputError, match=rf"^{swapped}: class 1 is 'box' in {own.owner}, but 'ball' in {swapped}; "
        ):
            build_metadata(cfg)
        node[key] = ()
    # Names that somebody gave come before those that nobody did.
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (nameless,), (swapped,)
    assert build_metadata(cfg)["classes"] == ["ground", "ball", "box"]
    with pytest.raises(InputError, match="give lists of data sets with the same classes in one order"):
        check_same_classes(own, ClassNames.from_dataset(swapped, cfg))


def variant(tree, name, **changes):
    """The config of the same images under another description."""
    tree.name = f"{tree.name}_{name}"
    tree.describe(**changes)


def save_run(cfg, folder):
    """A checkpoint of a framework whose weights all differ."""
    folder.mkdir()
    cfg.OUTPUT_DIR = str(folder)
    framework = build_framework(cfg)
    for parameter in framework.parameters():
        nn.init.normal_(parameter)
    FrameworkCheckpointer(framework, cfg).save("model_final")
    return framework


@pytest.mark.parametrize(
    ("opts", "changes", "message"),
    [
        ([], {"classes": ["ground", "ball", "box"]}, "class 1 is 'box' in the checkpoint, but 'ball' in"),
        ([], {"classes": ["Ground", "box", "ball"]}, "class 0 is 'ground' in the checkpoint, but 'Ground' in"),
        (SMALL_DETECTOR, {"objects": ["box", "ball"]}, "the detector's class 0 is 'ball' in the checkpoint, but 'box'"),
        (SMALL_DETECTOR, {"objects": ["ball"]}, "the detector's class 1 is 'box' in the checkpoint, but missing in"),
        (SMALL_FPN, {"objects": ["box", "ball"]}, "the detector's class 0 is 'ball' in the checkpoint, but 'box'"),
    ],
)
def test_a_model_is_used_on_its_classes_alone(tree, tmp_path, opts, changes, message):
    cfg = tree.cfg(*SMALL, *opts)
    save_run(cfg, tmp_path / "out")
    variant(tree, "other", **changes)
    cfg = tree.cfg(*SMALL, *opts, "MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    for load in (lambda: load_framework(cfg), lambda: load_initial_weights(build_model(cfg), cfg)):
        with pytest.raises(InputError, match=rf"model_final\.pth: {message}"):
            load()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        load_framework(cfg, resume=True)


def test_objects_matter_only_to_a_detector(tree, tmp_path):
    save_run(tree.cfg(*SMALL), tmp_path / "out")
    variant(tree, "other", objects=["box"])
    load_framework(tree.cfg(*SMALL, "MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth")))


# Where each new class and object was before: None is a new one.
CHANGES = {
    "one more": ({"classes": ["ground", "box", "ball", "cup"]}, [0, 1, 2, None], [0, 1]),
    "other order": ({"classes": ["ball", "ground", "box"]}, [2, 0, 1], [0, 1]),
    "one of them": ({"classes": ["sky", "box"], "objects": ["box"]}, [None, 1], [1]),
    "none of them": ({"classes": ["x", "y", "z"], "objects": ["z"]}, [None] * 3, [None]),
    "other objects": ({"objects": ["box", "ground", "ball"]}, [0, 1, 2], [1, None, 0]),
}


def rows_of(tensor, sources, old, fresh, width=1):
    """What a layer's weights must be: rows of the old one by their number, those of None as they began."""
    for index, source in enumerate(sources):
        part = slice(index * width, (index + 1) * width)
        before = fresh[part] if source is None else old[source * width : (source + 1) * width]
        assert torch.equal(tensor[part], before)


@pytest.mark.parametrize(("changes", "rows", "objects"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("opts", [[*SMALL_DETECTOR, *AUX], SMALL_FPN], ids=["shared", "alone"])
def test_classes_keep_their_weights_by_name(tree, tmp_path, caplog, opts, changes, rows, objects):
    trained = save_run(tree.cfg(*SMALL, *opts), tmp_path / "out")
    trained = (trained.teacher or trained.student).state_dict()
    variant(tree, "other", **changes)
    weights = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"), "MODEL.MATCH_CLASSES", True]
    cfg = tree.cfg(*SMALL, *opts, *weights)
    model = build_model(cfg)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    load_initial_weights(model, cfg)
    moved = 0
    for key, tensor in model.state_dict().items():
        old, begun = trained[key], fresh[key]
        if key.startswith(("sem_seg_head.predictor.", "aux_head.layers.2.")):
            rows_of(tensor, rows, old, begun)
        elif "box_predictor.cls_score." in key:
            rows_of(tensor, [*objects, 2], old, begun)  # the background is the last one
        elif "box_predictor.bbox_pred." in key:
            rows_of(tensor, objects, old, begun, width=4)
        else:
            assert torch.equal(tensor, old)
            continue
        moved += 1
    assert moved == (8 if "MODEL.AUX_HEAD.ENABLED" in opts else 4)
    assert "MODEL.MATCH_CLASSES: " in caplog.text and "begin anew" in caplog.text


def test_the_same_classes_need_no_matching(tree, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    trained = save_run(tree.cfg(*SMALL), tmp_path / "out")
    weights = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"), "MODEL.MATCH_CLASSES", True]
    cfg = tree.cfg(*SMALL, *weights)
    model = build_model(cfg)
    load_initial_weights(model, cfg)
    assert all(torch.equal(v, trained.teacher.state_dict()[k]) for k, v in model.state_dict().items())
    assert "MATCH_CLASSES" not in caplog.text


def test_another_model_is_refused_whatever_its_classes(tree, tmp_path):
    save_run(tree.cfg(*SMALL, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 128), tmp_path / "out")
    variant(tree, "other", classes=["ground", "box", "ball", "cup"])
    weights = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"), "MODEL.MATCH_CLASSES", True]
    cfg = tree.cfg(*SMALL, *weights)
    with pytest.raises(InputError, match=r"model_final\.pth: "):
        load_initial_weights(build_model(cfg), cfg)
