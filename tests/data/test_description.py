import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from wpl_d2 import get_cfg
from wpl_d2.data import GENERATORS, load_description, register, setup_datasets
from wpl_d2.data.datasets import generate_if_missing, setup
from wpl_d2.data.loader import labeled_records, load_records, unlabeled_records
from wpl_d2.data.pixel_values import RGB, PixelLayout
from wpl_d2.utils.errors import InputError


def test_a_description_fills_catalog_and_config(tree):
    cfg = tree.cfg()
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.MODEL.DETECTOR.CLASSES == (2, 1)
    record = DatasetCatalog.get(f"{tree.name}_labeled")[0]
    assert record == {
        "file_name": str(tree.image("labeled0")),
        "image_id": "labeled0",
        "sem_seg_file_name": str(tree.mask("labeled0")),
        "sem_seg_ignore": 255,
    }
    metadata = MetadataCatalog.get(f"{tree.name}_val")
    assert metadata.stuff_classes == ["ground", "box", "ball"]
    assert metadata.thing_classes == ["ball", "box"]
    assert metadata.thing_colors == [metadata.stuff_colors[2], metadata.stuff_colors[1]]
    assert (metadata.object_ids, metadata.ignore_label) == ((2, 1), 255)
    assert metadata.evaluator_type == "sem_seg"


def test_an_image_without_a_mask_file_gets_none(tree):
    tree.mask("unlabeled1").unlink()
    tree.cfg()
    records = DatasetCatalog.get(f"{tree.name}_unlabeled")
    assert ["sem_seg_file_name" in record for record in records] == [True, False, True, True, True]


def test_the_root_is_found(tree, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    tree.describe(root="somewhere")
    assert load_description(tree.yaml).root == Path("/data/somewhere")
    tree.describe(root="/absolute")
    assert load_description(tree.yaml).root == Path("/absolute")
    tree.describe(root="../beside")
    assert load_description(tree.yaml).root == tree.root.parent / "beside"


@pytest.mark.parametrize("name", ["camvid", "voc", "cityscapes", "coco"])
def test_the_projects_own_descriptions_are_sound(name):
    description = load_description(f"configs/datasets/{name}.yaml")
    assert len(description.colors) == len(description.classes) > len(description.objects) > 0


def test_registering_again_is_allowed_and_another_of_the_same_name_is_not(tree):
    tree.cfg()
    register(load_description(tree.yaml))
    tree.describe(classes=["ground", "box", "ball", "cone"])
    with pytest.raises(ValueError, match=r"already registered by .*; choose another 'name'"):
        register(load_description(tree.yaml))


def test_a_name_that_other_code_has_registered_is_refused(tree):
    tree.describe(name="coco_2017", lists={"val": "val.txt"})  # Detectron2's own
    with pytest.raises(
        ValueError, match=r"data\.yaml: the data set 'coco_2017_val' is already registered by other code"
    ):
        register(load_description(tree.yaml))


def test_the_same_lists_of_another_root_are_another_data_set(tree):
    tree.cfg()
    tree.describe(root="../elsewhere")
    with pytest.raises(ValueError, match=r"already registered by .*data\.yaml; choose another 'name'"):
        register(load_description(tree.yaml))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clases": []}, "unknown key 'clases'; did you mean classes"),
        ({"classes": None}, "the key 'classes' is missing; add it"),
        ({"lists": {}}, "'lists' is empty"),
        ({"lists": {130: "a.txt"}}, "'lists': 130 is not text; write text, in quotes"),
        ({"lists": "a.txt"}, "'lists': 'a.txt' is not a mapping"),
        ({"classes": ["a", True]}, "'classes': True is not text"),
        ({"classes": "a"}, "'classes': 'a' is not a list"),
        ({"classes": ["box", "box"]}, "'classes' has a name twice"),
        ({"classes": [f"c{i}" for i in range(256)], "objects": []}, "'classes' has 256 names; give 1 to 255"),
        ({"objects": ["bal"]}, "the object 'bal' is not a class; did you mean ball"),
        ({"objects": ["ball", "ball"]}, "'objects' has a name twice"),
        ({"ignore": 1}, "'ignore' is 1, a class id"),
        ({"ignore": "void"}, "'ignore': 'void' is not an integer"),
        ({"colors": [[1, 2, 3]]}, "'colors' has 1 entries; give one to each of 3"),
        ({"colors": [[1, 2, 300]]}, r"\[1, 2, 300\] is not a color"),
        ({"image": "images/x.png"}, "'image' has no {id}"),
        ({"mask": "masks/x.png"}, "'mask' has no {id}"),
        ({"channels": ["red", "red"]}, "'channels' has no name, or one twice"),
        ({"channels": 0}, "'channels': 0 is not a list"),
        ({"channels": 2, "value_range": [[0, 1]] * 3}, "'value_range' has 3 pairs; give one, or one to each of 2"),
        ({"value_range": [5, 1]}, r"'value_range': \[5, 1\] is no range; write \[black, white\]"),
        ({"value_range": [0, "1"]}, r"'value_range': \[0, '1'\] is no range"),
        ({"value_range": 255}, "'value_range': 255 is no range"),
        ({"generator": "digit"}, "'generator': 'digit' is not known; did you mean digits"),
    ],
)
def test_a_wrong_description_is_refused_in_words(tree, changes, message):
    root = "./missing" if "generator" in changes else "./"
    tree.describe(root=root, **changes)
    with pytest.raises(ValueError, match=message) as error:
        generate_if_missing(load_description(tree.yaml))
    assert str(error.value).startswith(f"{tree.yaml}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !!python/object/apply:os.system ['true']", "python/object/apply:os.system"),
        ("name: [", "is not YAML"),
        ("- a", "is not a mapping"),
        ("name: \xe9", "is not UTF-8 text .*; save it as UTF-8"),
    ],
)
def test_unsafe_or_broken_yaml_is_refused(tree, text, message):
    tree.yaml.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as error:
        load_description(tree.yaml)
    assert str(error.value).startswith(str(tree.yaml))


def test_a_folder_stands_for_the_images_in_it(tree):
    (tree.root / "images/labeled1.png").rename(tree.root / "images/labeled1.JPG")
    description = load_description(tree.describe(image="images", mask="masks/"))
    (tree.root / "labeled.txt").write_text("labeled0\nimages/labeled1.JPG\nlabeled2.png\n")
    records = description.records("labeled")
    assert [Path(record["file_name"]).name for record in records] == ["labeled0.png", "labeled1.JPG", "labeled2.png"]
    assert [record["sem_seg_file_name"] for record in records] == [str(tree.mask(f"labeled{i}")) for i in range(3)]
    (tree.root / "labeled.txt").write_text("nowhere")
    (record,) = description.records("labeled")
    assert record["sem_seg_missing"] == str(tree.root / "masks/nowhere.*")
    (tree.root / "images/val0.jpg").touch()
    with pytest.raises(ValueError, match=r"images/val0\.\*: is val0\.jpg or val0\.png; keep one"):
        description.records("val")


def test_a_missing_description_or_list_is_named(tree):
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file; give DATASETS.DESCRIPTION"):
        load_description("nowhere.yaml")
    tree.cfg()
    (tree.root / "val.txt").unlink()
    with pytest.raises(ValueError, match=r"val\.txt: the list 'val' .* DETECTRON2_DATASETS"):
        DatasetCatalog.get(f"{tree.name}_val")


def test_a_wrong_list_name_gets_the_nearest(tree):
    with pytest.raises(ValueError, match=f"DATASETS.TRAIN: '{tree.name}_labelled' .*did you mean"):
        tree.cfg("DATASETS.TRAIN", f"('{tree.name}_labelled',)")


def test_a_description_in_place_of_another_says_which_lists_it_has_and_which_keys_to_set(tree):
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.DESCRIPTION", str(tree.yaml), "DATASETS.TEST", (f"{tree.name}_val",)])
    cfg.merge_from_list(["DATASETS.TRAIN", ("digits_labeled",), "DATASETS.UNLABELED", ("digits_unlabeled",)])
    with pytest.raises(InputError) as error:
        setup_datasets(cfg)
    assert str(error.value).startswith("DATASETS.TRAIN: 'digits_labeled' is not a list")
    assert "; set DATASETS.TRAIN, DATASETS.UNLABELED to some of the lists that there are: " in str(error.value)
    for name in ("labeled", "unlabeled", "val"):
        assert f"{tree.name}_{name}" in str(error.value)
    assert "coco" not in str(error.value)  # not all that Detectron2 has registered


def test_a_list_without_a_description_says_that_it_is_missing(monkeypatch):
    monkeypatch.setattr(setup, "DatasetCatalog", {"coco_2017_val": DatasetCatalog["coco_2017_val"]})
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("fields_labeled",)
    with pytest.raises(
        InputError, match=r"DATASETS.TRAIN: 'fields_labeled' is not a list .* set DATASETS.DESCRIPTION to"
    ):
        setup_datasets(cfg)
    cfg.DATASETS.TRAIN = ("coco_2017_val",)  # Detectron2's own may be used
    setup_datasets(cfg)


def test_a_list_of_detectron2_without_its_data_is_named():
    with pytest.raises(InputError, match=r"TEST.X: the list 'coco_2017_val' cannot be read \(.*instances_val2017"):
        load_records("coco_2017_val", "TEST.X")
    assert load_records("coco_2017_val", "TEST.X", optional=True) == []


@pytest.mark.parametrize("text", ["_BASE_: a.yaml", "DATASETS: {TRAIN: []}"])
def test_a_config_is_no_description(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml: is a config, not .*; give it as --config-file"):
        load_description(tmp_path / "run.yaml")


def test_a_detector_needs_objects(tree):
    tree.describe(objects=None)
    with pytest.raises(ValueError, match="has no 'objects' to detect"):
        tree.cfg("MODEL.DETECTOR.MODE", "shared")


def test_without_a_description_registered_names_are_enough(tree):
    tree.cfg()
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (f"{tree.name}_labeled",)
    setup_datasets(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 0


def test_missing_data_are_generated_whole_or_not_at_all(tree):
    calls = []

    def generate(root):
        calls.append(root)
        (root / "a.txt").write_text("a")
        if len(calls) == 1:
            raise RuntimeError("stopped half way")

    generate.__name__ = tree.name
    GENERATORS.register(generate)
    tree.describe(root="./made", generator=tree.name)
    description = load_description(tree.yaml)
    with pytest.raises(RuntimeError, match="half way"):
        generate_if_missing(description)
    assert not description.root.exists()
    generate_if_missing(description)
    assert [file.name for file in description.root.iterdir()] == ["a.txt"]
    generate_if_missing(description)
    assert len(calls) == 2
    assert not list(tree.root.glob(".made*"))


@pytest.mark.parametrize(
    "name",
    ["../outside", "a/b", "/tmp/a", "a\\b", "a:b", "a*", "a?", 'a"b', "a\nb", ".hidden", "-a", "a ", "..", "a" * 101],
)
def test_a_name_that_would_lead_elsewhere_is_refused(tree, name):
    tree.describe(name=name)
    with pytest.raises(ValueError, match=r"data\.yaml: 'name': .* is unfit for a file's name; write up to 100"):
        load_description(tree.yaml)
    tree.describe(lists={"labeled": "labeled.txt", name: "val.txt"})
    with pytest.raises(ValueError, match=r"data\.yaml: 'lists': .* is unfit for a file's name"):
        load_description(tree.yaml)


@pytest.mark.parametrize("split", ["../up", "a/b", "1:8"])
def test_a_split_is_part_of_a_name(tree, split):
    tree.describe(lists={"{split}_val": "{split}.txt"}, splits=["1_8", split])
    with pytest.raises(ValueError, match=rf"data\.yaml: 'lists': '{split}_val' is unfit for a file's name"):
        load_description(tree.yaml)


def test_hidden_files_are_no_splits(tree):
    for name in ("1_8.txt", "._1_8.txt", ".#1_8.txt"):
        (tree.root / name).write_text("val0")
    tree.describe(lists={"{split}_val": "{split}.txt"})
    assert "1_8_val" in load_description(tree.yaml).lists
    assert not [name for name in load_description(tree.yaml).lists if name.startswith(".")]


@pytest.mark.parametrize("name", ["voc2012", "1_8", "my data", "Größe-2.1", "a+b", "x@y=z", "(old)"])
def test_other_names_are_taken(tree, name):
    tree.describe(name=name, lists={name: "val.txt"})
    assert load_description(tree.yaml).name == name


@pytest.mark.parametrize("ignore", [256, 300, -1, 65534, 65536, 10**9])
def test_a_value_that_no_mask_can_hold_is_refused(tree, ignore):
    tree.describe(ignore=ignore)
    with pytest.raises(
        ValueError, match=rf"data\.yaml: 'ignore' is {ignore}, which no mask can hold; use a value from 3"
    ):
        load_description(tree.yaml)


@pytest.mark.parametrize("ignore", [3, 254, 255, 65535])
def test_values_that_masks_can_hold_are_taken(tree, ignore):
    tree.describe(ignore=ignore)
    assert load_description(tree.yaml).ignore == ignore


@pytest.mark.parametrize("ignore", [255.0, "255", True, None, [255]])
def test_what_is_no_whole_number_is_refused(tree, ignore):
    tree.describe()
    tree.yaml.write_text(tree.yaml.read_text() + f"ignore: {json.dumps(ignore)}\n")
    with pytest.raises(ValueError, match=r"data\.yaml: 'ignore': .* is not an integer"):
        load_description(tree.yaml)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("name: other\n", 2, "name"),
        ("'name': other\n", 2, "name"),
        ("mask: other\nignore: 7\nignore: 8\n", 4, "ignore"),
        ("colors: [[0, 0, 0], {r: 1, g: 2, r: 3}]\n", 2, "r"),
        ("lists: {a: b,\n  c: d,\n  a: e}\n", 4, "a"),
        ("lists: &l {a: b}\nmore: {x: *l, y: {q: 1, q: 2}}\n", 3, "q"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tree, text, line, key):
    tree.yaml.write_text("name: first\n" + text)
    with pytest.raises(ValueError, match=rf"data\.yaml, line {line}: has the key '{key}' a second time; keep one"):
        load_description(tree.yaml)


def test_an_anchor_below_itself_is_no_endless_search(tree):
    tree.yaml.write_text("name: &n [*n]\n")
    with pytest.raises(ValueError, match="the key 'root' is missing"):
        load_description(tree.yaml)


@pytest.mark.parametrize(
    ("keys", "channels", "value_range"),
    [
        ({}, RGB.channels, ()),
        ({"value_range": [0, 4095]}, RGB.channels, ((0, 4095),) * 3),
        ({"channels": 1, "value_range": [[-1.5, 1]]}, ("gray",), ((-1.5, 1),)),
        ({"channels": 2}, ("channel 1", "channel 2"), ()),
        ({"channels": ["nir", "red"], "value_range": [[0, 1], [0, 2]]}, ("nir", "red"), ((0, 1), (0, 2))),
    ],
)
def test_channels_and_their_range_reach_config_and_samples(tree, keys, channels, value_range):
    tree.describe(**keys)
    cfg = tree.cfg()
    layout = PixelLayout(channels, value_range)
    assert PixelLayout.from_config(cfg) == layout
    assert len(cfg.MODEL.PIXEL_MEAN) == len(cfg.MODEL.PIXEL_STD) == len(channels)
    for record in (*labeled_records(cfg), *unlabeled_records(cfg)):
        assert record.get("layout", RGB) == layout


@pytest.mark.parametrize(("channels", "mean"), [(5, [1.0, 2.0, 3.0, 1.0, 2.0]), (1, [2.0]), (2, [1.0, 2.0])])
def test_statistics_of_other_channels_are_those_of_their_weights(tree, channels, mean):
    tree.describe(channels=channels)
    assert mean == tree.cfg("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]).MODEL.PIXEL_MEAN
    with pytest.raises(InputError, match=rf"MODEL\.PIXEL_STD: has 4 values, and the images of .* {channels} channels"):
        tree.cfg("MODEL.PIXEL_STD", [1.0] * 4)
