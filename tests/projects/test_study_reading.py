"""A study's YAML becomes runs, and what is wrong with it is said in words."""

from pathlib import Path

import pytest
import yaml
from wpl_study.oracle import host_of
from wpl_study.reading import load_study
from wpl_study.runs import select
from wpl_study.table import Table

from wpl_d2.config import load_cfg
from wpl_d2.config.validation import check_config
from wpl_d2.data import load_description
from wpl_d2.frameworks import FRAMEWORK_REGISTRY
from wpl_d2.utils.errors import InputError
from wpl_d2.weighting import PixelWeigher

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "projects" / "WeightStudy" / "studies").glob("*.yaml"))
BASE = "configs/camvid/mean_teacher.yaml"
LEAST = {
    "base": BASE,
    "lists": {"labeled": "camvid_1_30_labeled", "unlabeled": "camvid_1_30_unlabeled", "dev": "camvid_dev"},
    "draws": {"a": {"seed": 0}},
    "plain": "host",
    "rows": {"host": {}, "ppw": {"WEIGHTING.ENABLED": True}},
}


@pytest.fixture
def study_of(tmp_path):
    """Reads a study of LEAST and changes to it."""

    def make(**changes):
        file = tmp_path / "study.yaml"
        whole = {key: value for key, value in (LEAST | changes).items() if value is not None}
        file.write_text(yaml.safe_dump(whole))
        return load_study(file)

    return make


def words_after(command, *keys):
    return {key: command[command.index(key) + 1] for key in keys}


def candidates(study):
    return {name for name, row in study.rows.items() if Table(study, {}, Path("out")).candidate(row)}


def check_build(cfg):
    """All of a training that can be wrong without its data: rules of keys and host, and the weigher."""
    description = load_description(cfg.DATASETS.DESCRIPTION)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.DETECTOR.CLASSES = len(description.classes), description.object_ids
    check_config(cfg)
    FRAMEWORK_REGISTRY.get(host_of(cfg.FRAMEWORK.NAME)).check_config(cfg)
    assert PixelWeigher.from_config(cfg).scores


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_row_of_a_committed_study_has_a_config(file):
    study = load_study(file)
    first, *others = study.draws
    assert len(others) >= 2
    assert all(run.config.FRAMEWORK.NAME for run in select(study, Path("out"), [next(iter(study.rows))], others))
    for run in select(study, Path("out"), draws=[first]):
        check_build(run.config.clone())
        for step in run.judgings()[-1:]:
            assert load_cfg(str(study.base), step.command[step.command.index("--output") + 2 :])
        if run.row.asks_for_boxes:
            (_, train), _ = run.detector_commands(study.detector)
            assert load_cfg(train[2], train[4:]).FRAMEWORK.NAME == "Detector"
    names = set(study.rows)
    assert all(row.plain in names for row in study.rows.values())


def test_the_first_study_has_all_rows_of_its_question():
    (file,) = (file for file in STUDIES if file.stem == "voc_animals_1_8")
    study = load_study(file)
    rows = study.rows
    kinds = {row.settings.get("WEIGHTING.KIND") for row in rows.values()}
    assert {
        "rank",
        "rank_margin",
        "knn_margin",
        "confidence",
        "object",
        "softmatch",
        "covar",
        "csl",
        "detector",
        "calibrated",
    } <= kinds
    labels = {row.settings.get("PSEUDO_LABEL.REFINE") for row in rows.values()}
    assert {"component_vote", "tta", "detector"} <= labels
    assert {name for name, row in rows.items() if row.oracle} == {"oracle_weights", "oracle_labels"}
    assert candidates(study) == rows.keys() - {
        *("supervised", "supervised_ema", "plain_0", "plain_95", "oracle_weights", "oracle_labels")
    }


def test_a_run_is_the_preset_with_the_rows_keys_the_draws_lists_and_its_seed(study_of):
    lists = {"labeled": "voc{draw}_l", "unlabeled": "voc{draw}_u", "dev": "voc_dev", "val": "voc_val"}
    draws = {"a": {"seed": 3}, "b": {"seed": 4, "suffix": "_b"}}
    rows = {"host": None, "nested": {"WEIGHTING": {"ENABLED": True, "K": 7}, "INPUT.CROP_SIZE": [64, 96]}}
    study = study_of(lists=lists, draws=draws, rows=rows, overrides={"WEIGHTING.K": 3, "SOLVER.MAX_ITER": 10})
    runs = {run.name: run for run in select(study, Path("out"))}
    assert list(runs) == ["host/a", "host/b", "nested/a", "nested/b"]
    command = runs["nested/b"].training
    assert Path(command[0]).resolve() == ROOT / "tools" / "train_net.py"
    assert command[3] == "--resume"
    cfg = load_cfg(command[2], command[4:])
    assert (cfg.WEIGHTING.ENABLED, cfg.WEIGHTING.K, cfg.INPUT.CROP_SIZE, cfg.SOLVER.MAX_ITER) == (True, 7, (64, 96), 10)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED) == (("voc_b_l",), ("voc_b_u",))
    assert (cfg.DATASETS.TEST, cfg.SEED, cfg.OUTPUT_DIR) == (("voc_dev", "voc_val"), 4, "out/nested/b")
    assert cfg.TEST.STUDENT and cfg.TEST.EVAL_PERIOD > cfg.SOLVER.MAX_ITER
    host = load_cfg(command[2], runs["host/a"].training[4:])
    assert (host.WEIGHTING.K, host.DATASETS.TRAIN, host.SEED) == (3, ("voc_l",), 3)
    assert candidates(study) == {"nested"}


def test_training_on_labels_alone_has_no_unlabeled_list_and_no_val_is_no_val(study_of):
    study = study_of(rows={"host": {}, "labels_alone": {"FRAMEWORK.NAME": "Supervised"}})
    host, alone = (load_cfg(BASE, run.training[4:]).DATASETS for run in select(study, Path("out")))
    assert (host.UNLABELED, alone.UNLABELED) == (("camvid_1_30_unlabeled",), ())
    assert host.TEST == alone.TEST == ("camvid_dev",)
    assert not candidates(study)


def test_epochs_of_the_preset_are_of_the_draws_lists(study_of, tree, tmp_path):
    solver = "SOLVER: {EPOCHS: 30, IMS_PER_BATCH: 2}"
    (tmp_path / "base.yaml").write_text(f"DATASETS: {{DESCRIPTION: {tree.yaml}, SPLIT: other}}\n{solver}\n")
    lists = {"labeled": f"{tree.name}_labeled", "unlabeled": f"{tree.name}_unlabeled", "dev": f"{tree.name}_val"}
    rows = {"host": {}, "labels_alone": {"FRAMEWORK.NAME": "Supervised"}}
    study = study_of(base=str(tmp_path / "base.yaml"), lists=lists, rows=rows)
    # Of 5 and of 3 images.
    assert [run.config.SOLVER.MAX_ITER for run in select(study, Path("out"))] == [60, 30]


def test_an_oracle_is_trained_by_the_projects_command_and_judged_as_its_host(study_of):
    name = "OracleWeightsMeanTeacher"
    study = study_of(rows={"host": {}, "oracle_w": {"FRAMEWORK.NAME": name}}, judge={"images": 5})
    (run,) = select(study, Path("out"), ["oracle_w"])
    assert Path(run.training[0]).name == "train_oracle.py"
    assert words_after(run.training, "FRAMEWORK.NAME") == {"FRAMEWORK.NAME": name}
    (judging,) = run.judgings()
    assert Path(judging.command[0]).name == "judge_pseudo_labels.py"
    assert words_after(judging.command, "FRAMEWORK.NAME") == {"FRAMEWORK.NAME": "MeanTeacher"}


def test_labels_are_judged_at_the_checkpoints_of_the_steps_and_at_the_last(study_of):
    study = study_of(judge={"images": 7, "steps": [400, 200]})
    run = select(study, Path("out"), ["ppw"])[0]
    judged = run.judgings()
    assert [step.checkpoint.name for step in judged] == ["model_0000199.pth", "model_0000399.pth", "model_final.pth"]
    assert [step.file.name for step in judged] == [f"judged_0000{step}00_7.json" for step in (2, 4, 6)]
    assert words_after(judged[0].command, "--dataset", "--images", "MODEL.WEIGHTS") == {
        "--dataset": "camvid_1_30_unlabeled",
        "--images": "7",
        "MODEL.WEIGHTS": "out/ppw/a/model_0000199.pth",
    }
    assert load_cfg(BASE, run.training[4:]).SOLVER.CHECKPOINTS_TO_KEEP > 600
    # What is judged is no setting of a training, so that it may change later.
    assert run.settings == select(study_of(judge=None), Path("out"), ["ppw"])[0].settings
    assert select(study_of(judge=None), Path("out"))[0].judgings() == []


def test_boxes_are_of_a_detector_of_the_same_draw(study_of):
    rows = {"host": {}, "boxes": {"MODEL.DETECTOR.MODE": "cached", "MODEL.DETECTOR.CACHE": "{boxes}"}}
    detector = {"base": "configs/detector/camvid_lite0.yaml", "overrides": {"SOLVER.MAX_ITER": 9}}
    study = study_of(rows=rows, detector=detector, draws={"a": {"seed": 0}, "b": {"seed": 5}})
    run = select(study, Path("out"), ["boxes"], ["b"])[0]
    (weights, train), (boxes, keep) = run.detector_commands(study.detector)
    cfg = load_cfg(train[2], train[4:])
    assert (cfg.SOLVER.MAX_ITER, cfg.SEED, cfg.DATASETS.TRAIN) == (9, 5, ("camvid_1_30_labeled",))
    assert words_after(keep, "--weights", "--dataset", "--output") == {
        "--weights": str(weights),
        "--dataset": "camvid_1_30_unlabeled",
        "--output": str(boxes),
    }
    assert str(boxes) == load_cfg(BASE, run.training[4:]).MODEL.DETECTOR.CACHE
    assert run.settings["MODEL.DETECTOR.CACHE"] == "{boxes}"


def test_a_study_stands_on_another(study_of, tmp_path):
    study_of(title="The first", judge={"images": 3})
    (tmp_path / "second.yaml").write_text("_BASE_: study.yaml\ntitle: The second\nrows: {host: {WEIGHTING.K: 9}}\n")
    second = load_study(tmp_path / "second.yaml")
    assert (second.title, second.judge.images, list(second.rows)) == ("The second", 3, ["host"])
    (tmp_path / "round.yaml").write_text("_BASE_: second.yaml\n")
    for base in ("second.yaml", "third.yaml", "round.yaml", 5):
        (tmp_path / "second.yaml").write_text(f"_BASE_: {base}\n")
        with pytest.raises(InputError, match=r"\.yaml: _BASE_: .*(not another study|not text)"):
            load_study(tmp_path / "second.yaml")


WRONG = {
    "the study's key: 'draw' is not known; did you mean draws": {"draw": {}},
    "'base' is missing; add it": {"base": None},
    r"base: nothing\.yaml is not a file": {"base": "nothing.yaml"},
    "plain: 'hosts' is not known; did you mean host": {"plain": "hosts"},
    "plain: None is not known": {"plain": None},
    "rows: ppw: plain: 'hots' is not known": {"rows": {"host": {}, "ppw": {"plain": "hots"}}},
    r"rows: \{\} does not name any": {"rows": {}},
    "rows: 'a/b' does not do as a name": {"rows": {"a/b": {}}},
    "rows: 5 does not do as a name": {"rows": {5: {}}},
    "rows: 'results.csv' does not do as a name": {"rows": {"results.csv": {}}},
    "rows: '_detector' does not do as a name": {"rows": {"_detector": {}}},
    "rows: host: 3 does not consist of": {"rows": {"host": 3}},
    r"rows: host: DATASETS\.TRAIN is set by the study": {"rows": {"host": {"DATASETS": {"TRAIN": "x"}}}},
    "overrides: SEED is set by the study": {"overrides": {"SEED": 4}},
    r"overrides: \[\] does not consist of": {"overrides": []},
    "draws: a: there is no 'sed'; did you mean seed": {"draws": {"a": {"sed": 3}}},
    "draws: a: 'seed' is missing": {"draws": {"a": {}}},
    "draws: a: seed: 'x' does not do; give a whole number": {"draws": {"a": {"seed": "x"}}},
    "draws: a: seed: True does not do": {"draws": {"a": {"seed": True}}},
    "draws: two have the same seed and the same suffix": {"draws": {"a": {"seed": 1}, "b": {"seed": 1}}},
    "lists: 'dev' is missing": {"lists": {"labeled": "l", "unlabeled": "u"}},
    "lists: dev: 3 is not text": {"lists": {"labeled": "l", "unlabeled": "u", "dev": 3}},
    "judge: images: 0 does not do; give a whole number, 1 or more": {"judge": {"images": 0}},
    "judge: steps: 5 is not a list": {"judge": {"images": 1, "steps": 5}},
    "judge: steps: 0 does not do": {"judge": {"images": 1, "steps": [0]}},
    "detector: 'base' is missing": {"detector": {}},
    "rows: b: asks for {boxes}, but there is no 'detector'": {"rows": {"host": {}, "b": {"A": "{boxes}"}}},
    "questions: x: 'hosts' is not known; did you mean host": {"questions": {"x": ["host", "hosts"]}},
    "questions: .* does not do; give two rows or more": {"questions": {"x": ["host"]}},
    "rows: room: is an oracle; let its name say so, such as oracle_room": {
        "rows": {"host": {}, "room": {"FRAMEWORK.NAME": "OracleLabelsUniMatch"}}
    },
    "rows: oracle: is not an oracle by its FRAMEWORK.NAME": {"rows": {"host": {}, "oracle": {}}},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_study_is_named(study_of, message):
    with pytest.raises(InputError, match=rf"study\.yaml: {message}"):
        study_of(**WRONG[message])


@pytest.mark.parametrize("text", ["rows: [", "- a", "!!python/object/apply:os.system [ls]", "\x00"])
def test_what_is_no_yaml_is_named(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml: is "):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("row", "judge", "message"),
    [
        ({"WEIGHTING.KINDD": "rank"}, None, "no config key WEIGHTING.KINDD; did you mean"),
        ({"FRAMEWORK.THRESHOLD": 1.5}, None, "FRAMEWORK.THRESHOLD: 1.5 is out of its range"),
        ({"FRAMEWORK.NAME": "MeanTeecher"}, None, "'MeanTeecher' is not known; did you mean MeanTeacher"),
        ({}, {"images": 1, "steps": [150]}, "there is no checkpoint after step 150; take a multiple of"),
        ({}, {"images": 1, "steps": [800]}, "no checkpoint after step 800; .* up to SOLVER.MAX_ITER, 600"),
        ({"SOLVER.CHECKPOINT_PERIOD": 0}, {"images": 1, "steps": [200]}, "no checkpoint after step 200"),
    ],
)
def test_what_is_wrong_with_a_row_is_the_rows(study_of, row, judge, message):
    study = study_of(rows={"host": {}, "other": row}, judge=judge)
    with pytest.raises(InputError, match=message):
        assert select(study, Path("out"), ["other"])[0].config


def test_reading_a_study_registers_no_oracle(study_of):
    study = study_of(rows={"host": {}, "oracle_w": {"FRAMEWORK.NAME": "OracleWeightsMeanTeacher"}})
    assert [run.settings["SEED"] for run in select(study, Path("out"))] == ["0", "0"]
    assert not [name for name, _ in FRAMEWORK_REGISTRY if name.startswith("Oracle")]


def test_unknown_rows_and_draws_are_named(study_of):
    for rows, draws, message in ((["ppww"], [], "--rows: 'ppww'.*did you mean ppw"), ([], ["z"], "--draws: 'z'")):
        with pytest.raises(InputError, match=message):
            select(study_of(), Path("out"), rows, draws)
