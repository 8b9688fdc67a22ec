"""Which of several files and the command line counts, for splits and epochs too."""

from functools import reduce

import pytest
import yaml

from wpl_d2.config import load_cfg
from wpl_d2.config.layers import IN_EPOCHS, layer_of, read_layers, value_of
from wpl_d2.utils.errors import InputError


@pytest.fixture
def config(tree, tmp_path):
    """Writes configs that stand on each other, the last of which is returned, over a data set with the split 1_16."""
    splits = {"{split}_labeled": "{split}_labeled.txt", "{split}_unlabeled": "{split}_unlabeled.txt"}
    tree.describe(lists={"val": "val.txt", **splits}, splits=["1_16", "1_8"])

    def write(*contents):
        for number, content in enumerate(contents):
            data = {"DESCRIPTION": str(tree.yaml), **content.get("DATASETS", {})}
            base = {"_BASE_": f"{number - 1}.yaml"} if number else {}
            (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump({**content, **base, "DATASETS": data}))
        return str(tmp_path / f"{len(contents) - 1}.yaml")

    return write


def test_layers_come_in_the_order_in_which_they_count(config):
    file = config({"SEED": 1, "OUTPUT_DIR": "a"}, {"SEED": 2})
    layers = read_layers(file, ["SEED", "3", "OUTPUT_DIR", "b"])
    assert [layer.source for layer in layers] == [file.replace("1.yaml", "0.yaml"), file, "overrides"]
    assert [layer.values.get("SEED") for layer in layers] == [1, 2, "3"]
    assert (layer_of(layers[:2], "OUTPUT_DIR"), layer_of(layers, "OUTPUT_DIR"), layer_of(layers, "VERSION")) == (
        0,
        2,
        -1,
    )
    assert (load_cfg(file).SEED, load_cfg(file, ["SEED", "3"]).SEED) == (2, 3)


def lists(tree, file, *opts):
    cfg = load_cfg(file, opts)
    assert cfg.DATASETS.SPLIT == ""  # a run's config.yaml starts the same run again
    return tuple(
        tuple(name.removeprefix(f"{tree.name}_") for name in cfg.DATASETS[key]) for key in ("TRAIN", "UNLABELED")
    )


def test_a_split_chooses_both_lists_and_names_the_folder(tree, config):
    file = config({"DATASETS": {"SPLIT": "1_16"}, "OUTPUT_DIR": "output/{split}"})
    assert lists(tree, file) == (("1_16_labeled",), ("1_16_unlabeled",))
    # On the command line as it is, though Python takes it for a number.
    assert lists(tree, file, "DATASETS.SPLIT", "1_8") == (("1_8_labeled",), ("1_8_unlabeled",))
    cfg = load_cfg(file, ["DATASETS.SPLIT", "1_8", "MODEL.DETECTOR.CACHE", "{split}.npz"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.DETECTOR.CACHE) == ("output/1_8", "1_8.npz")


def test_lists_that_are_set_beside_it_or_later_stand(tree, config):
    split = {"DATASETS": {"SPLIT": "1_16"}}
    assert lists(tree, config(split, {"DATASETS": {"TRAIN": ["own"]}})) == (("own",), ("1_16_unlabeled",))
    assert lists(tree, config(split), "DATASETS.UNLABELED", "['own']") == (("1_16_labeled",), ("own",))
    # No list of the split is asked for, so that the data set need not have it.
    own = ["DATASETS.TRAIN", "['own']", "DATASETS.UNLABELED", "['more']"]
    assert lists(tree, config({"DATASETS": {"SPLIT": "none"}}), *own) == (("own",), ("more",))
    beside = {"SPLIT": "1_16", "TRAIN": ["own"]}
    assert lists(tree, config({"DATASETS": beside})) == (("own",), ("1_16_unlabeled",))
    named = {"DATASETS": {"TRAIN": ["own"], "UNLABELED": ["more"]}}
    assert lists(tree, config(named), "DATASETS.SPLIT", "1_8") == (("1_8_labeled",), ("1_8_unlabeled",))


def test_a_split_gives_no_unlabeled_images_to_a_method_without(tree, config):
    supervised = config({"DATASETS": {"SPLIT": "1_16"}}, {"DATASETS": {"UNLABELED": []}})
    assert lists(tree, supervised, "DATASETS.SPLIT", "1_8") == (("1_8_labeled",), ())


def test_lists_of_the_usual_names_are_those_of_a_later_description(tree, config):
    tree.describe()
    own = tuple((f"{tree.name}_{name}",) for name in ("labeled", "unlabeled", "val"))

    def data(file, *opts):
        cfg = load_cfg(file, opts)
        return cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED, cfg.DATASETS.TEST

    others = {"DATASETS": {"DESCRIPTION": "other.yaml", "TRAIN": ["a"], "UNLABELED": ["b"], "TEST": ["c"]}}
    described = {"DATASETS": {"DESCRIPTION": str(tree.yaml)}}
    assert data(config(described)) == own
    assert data(config(others, described)) == own
    assert data(config(others), "DATASETS.DESCRIPTION", str(tree.yaml)) == own
    assert data(str(tree.yaml)) == own
    # Lists that are named with it, or after it, stand, and so does what a method does without.
    assert data(config(described), "DATASETS.TRAIN", "own") == (("own",), (), ())
    assert data(config(described), "DATASETS.TEST", "()") == (*own[:2], ())
    supervised = config({"DATASETS": {"UNLABELED": []}}, described)
    assert data(supervised) == (own[0], (), own[2])
    tree.describe(lists={"labeled": "labeled.txt"})
    assert data(config(others, described)) == (own[0], (), ())


def test_presets_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = load_cfg("voc/unimatch")
    assert by_name == load_cfg("configs/voc/unimatch.yaml") and by_name.FRAMEWORK.NAME == "UniMatch"
    with pytest.raises(InputError, match=r"voc/unimach: .*; did you mean voc/unimatch"):
        load_cfg("voc/unimach")


def test_splits_that_there_are_not_are_refused(config):
    with pytest.raises(InputError, match=r"SPLIT: .*data\.yaml has no list '1_80_labeled'; did you mean 1_8 or"):
        load_cfg(config({}), ["DATASETS.SPLIT", "1_80"])
    with pytest.raises(
        InputError, match=r"0\.yaml: DATASETS\.SPLIT cannot be 116 of type int; give it text, in quotes"
    ):
        load_cfg(config({"DATASETS": {"SPLIT": 116}}))


@pytest.mark.parametrize(("epochs", "steps"), IN_EPOCHS.items())
def test_of_epochs_and_steps_the_later_ones_count(config, epochs, steps):
    def epochs_of(file, *opts):
        return value_of(load_cfg(file, opts), epochs)

    def nested(key, value):
        return reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)

    in_epochs, in_steps = nested(epochs, 2), nested(steps, 70)
    assert epochs_of(config(dict(in_epochs))) == 2
    assert epochs_of(config(dict(in_epochs), dict(in_steps))) == epochs_of(config(dict(in_epochs)), steps, "9") == 0
    assert epochs_of(config(dict(in_steps), dict(in_epochs))) == epochs_of(config(dict(in_steps)), epochs, "2") == 2
    with pytest.raises(InputError, match=f"^overrides: sets {epochs} and {steps}; leave out one"):
        load_cfg("", [epochs, "3", steps, "3"])
