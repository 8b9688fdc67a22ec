"""Every run behind the paper's figures is a config that trains, after the commands that it needs."""

import csv
import functools
import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from helpers import build_on_meta, write_detection_cache
from wpl_tables.commands import next_step, steps_of
from wpl_tables.recipes import Recipe
from wpl_tables.tables import load_tables

from wpl_d2.config import load_cfg
from wpl_d2.data import load_description, setup_datasets
from wpl_d2.data.preparation import published_lists
from wpl_d2.engine import Trainer, solver

RUNS = sorted({cell.run for table in load_tables().values() for cell in table.cells if cell.run})
ROOT = Path("output/paper")
description_of = functools.cache(load_description)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_a_preset_with_valid_overrides(name):
    recipe = Recipe.from_name(name)
    cfg = load_cfg(str(recipe.config), recipe.overrides(ROOT))
    description = description_of(cfg.DATASETS.DESCRIPTION)
    assert description.name == recipe.data
    assert (f"{recipe.lists}_labeled",) == cfg.DATASETS.TRAIN
    assert (() if recipe.host == "supervised" else (f"{recipe.lists}_unlabeled",)) == cfg.DATASETS.UNLABELED
    lists = {f"{description.name}_{stem}" for stem in description.lists}
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.UNLABELED, *cfg.DATASETS.TEST} <= lists
    assert recipe.host.replace("_", "").removesuffix("blender") == cfg.FRAMEWORK.NAME.lower()
    assert bool(recipe.weights) == cfg.WEIGHTING.ENABLED
    assert (recipe.weights == "_wpl") == cfg.RPPI.ENABLED
    assert ("cached" if recipe.weights == "_wpl" or recipe.judged else "none") == cfg.MODEL.DETECTOR.MODE
    if recipe.network in ("r50", "r101"):
        assert f"r{cfg.MODEL.RESNETS.DEPTH}" == recipe.network
        deep_stem, basic_stem = ("R-52", "resnet50") if recipe.network == "r50" else ("R-103", "resnet101")
        assert (basic_stem if cfg.MODEL.RESNETS.STEM_TYPE == "basic" else deep_stem) in cfg.MODEL.WEIGHTS


def test_every_model_and_framework_of_a_run_builds():
    distinct = {}
    for name in RUNS:
        recipe = Recipe.from_name(name)
        cfg = load_cfg(str(recipe.config), recipe.overrides(ROOT))
        # Splits differ in this, and in no shape.
        cfg.MODEL.DETECTOR.CACHE = ""
        shape = cfg.DATASETS.DESCRIPTION, *(cfg[node].dump() for node in ("MODEL", "FRAMEWORK", "WEIGHTING", "RPPI"))
        distinct[shape] = cfg
    for cfg in distinct.values():
        assert type(build_on_meta(cfg)).__name__ == cfg.FRAMEWORK.NAME


@pytest.mark.parametrize("data", ["voc_183", "cityscapes_1_8", "coco_1_32"])
def test_the_detector_learns_the_same_split_and_its_boxes_are_what_the_run_reads(data):
    network = "xception" if data.startswith("coco") else "r101"
    train, keep, run = steps_of(Recipe.from_name(f"{data}/{network}/unimatch_wpl"), ROOT, seed=1, processes=4)
    assert [Path(step.command[0]).name for step in (train, keep, run)] == [
        *("train_net.py", "cache_boxes.py", "train_net.py")
    ]
    detector, trained = (load_cfg(step.command[2], step.command[5:]) for step in (train, run))
    assert detector.FRAMEWORK.NAME == "Detector"
    assert detector.DATASETS.TRAIN == trained.DATASETS.TRAIN
    assert detector.DATASETS.DESCRIPTION == trained.DATASETS.DESCRIPTION
    assert str(train.leaves) == f"{detector.OUTPUT_DIR}/model_final.pth"
    kept = {flag: keep.command[keep.command.index(flag) + 1] for flag in ("--weights", "--dataset", "--output")}
    assert kept["--weights"] == str(train.leaves)
    assert list(trained.DATASETS.UNLABELED) == [kept["--dataset"]]
    assert trained.MODEL.DETECTOR.CACHE == str(keep.leaves) == kept["--output"]
    assert trained.SEED == 1
    assert Path(trained.OUTPUT_DIR) == ROOT / data / network / "unimatch_wpl" / "seed_1"


def test_what_is_missing_comes_first(tmp_path):
    def next_tool(name):
        todo = next_step(steps_of(Recipe.from_name(name), tmp_path, seed=0))
        return Path(todo.command[0]).name, str(todo.leaves.relative_to(tmp_path))

    weighted, judged = "voc_92/r101/unimatch_wpl", "voc_92/r101/unimatch_judged"
    boxes = tmp_path / "detector" / "voc_92" / "boxes.npz"
    boxes.parent.mkdir(parents=True)
    assert next_tool("voc_92/r101/unimatch") == ("train_net.py", "voc_92/r101/unimatch/seed_0/model_final.pth")
    assert next_tool(weighted) == ("train_net.py", "detector/voc_92/model_final.pth")
    boxes.with_name("model_final.pth").touch()
    assert next_tool(weighted) == ("cache_boxes.py", "detector/voc_92/boxes.npz")
    boxes.touch()
    boxes.with_name("model_final.pth").unlink()  # of no use any more
    assert next_tool(weighted) == ("train_net.py", "voc_92/r101/unimatch_wpl/seed_0/model_final.pth")
    assert next_tool(judged) == ("train_net.py", "voc_92/r101/unimatch/seed_0/model_final.pth")
    (tmp_path / "voc_92" / "r101" / "unimatch" / "seed_0").mkdir(parents=True)
    (tmp_path / "voc_92" / "r101" / "unimatch" / "seed_0" / "model_final.pth").touch()
    assert next_tool(judged) == ("judge_pseudo_labels.py", "voc_92/r101/unimatch_judged/seed_0/judged.json")


@pytest.mark.parametrize(
    ("name", "opts", "expected"),
    [
        # 80 epochs of 5 steps (23 images a process, 4 a step); 240 of 11.
        ("voc_92", [], (16, 400, 20, 0.001)),
        ("cityscapes_1_16", [], (16, 2640, 132, 0.005)),
        ("voc_92", ["SOLVER.IMS_PER_BATCH", "4"], (4, 1600, 80, 0.00025)),
        ("voc_92", ["SOLVER.IMS_PER_BATCH", "5"], (5, 1280, 64, 0.0003125)),
    ],
)
def test_the_supervised_baseline_has_unimatchs_epochs_at_any_batch(monkeypatch, name, opts, expected):
    recipe = Recipe.from_name(f"{name}/r101/supervised")
    images = published_lists(recipe.data)[f"{recipe.split}_labeled"].images
    monkeypatch.setattr(solver, "load_records", lambda name, key: range(images))
    opts = [*recipe.overrides(ROOT), *opts]
    cfg = load_cfg(str(recipe.config), opts)
    solver.resolve_epochs(cfg)
    solver.scale_schedule(cfg, given=opts[::2])
    found = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.BASE_LR
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("data", "processes", "batch"), [("voc", 4, 8), ("cityscapes", 2, 4)])
def test_ps_mt_burns_in_for_five_epochs_of_each_lists_labeled_images(data, processes, batch):
    found = {
        recipe.split: recipe for recipe in map(Recipe.from_name, RUNS) if (recipe.data, recipe.host) == (data, "ps_mt")
    }
    assert len(found) >= 3
    for split, recipe in found.items():
        images = published_lists(data)[f"{split}_labeled"].images
        cfg = load_cfg(str(recipe.config), recipe.overrides(ROOT))
        assert 5 * (-(-images // processes) // batch) == cfg.FRAMEWORK.BURN_IN, split
    assert {split for split in found if "blender" in found[split].config.name} == {
        s for s in found if data == "voc" and "_" in s
    }


TOY = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18"),
    *("MODEL.WEIGHTS", "", "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", "True", "INPUT.CROP_SIZE", "(65, 65)"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.UNLABELED_IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
    *("VIS_PERIOD", "0", "SOLVER.CHECKPOINT_PERIOD", "0", "FRAMEWORK.AEL.HEAD_CLASSES", "()"),
    *("FRAMEWORK.BURN_IN_EPOCHS", "0", "FRAMEWORK.EMA_COPY_EPOCHS", "0"),
]


# A row of each ablation, and where its value ends up.
KNOBS = {
    "alpha_0.2": lambda framework: framework.alpha,
    "box_score_0.80": lambda framework: framework.weigher.box_score,
    "bank_size_32": lambda framework: framework.weigher.labeled_bank.ring.shape[1],
    "k_3": lambda framework: framework.weigher.scores["rank"].options.k,
}


def toy(tree, **opts):
    """Overrides that put the made-up data set and a small network in a recipe's place."""
    lists = {key: f'("{tree.name}_{stem}",)' for key, stem in (("TRAIN", "labeled"), ("UNLABELED", "unlabeled"))}
    if opts.pop("supervised", False):
        lists["UNLABELED"] = "()"
    data = {"DESCRIPTION": str(tree.yaml), "TEST": f'("{tree.name}_val",)', **lists}
    own = {f"DATASETS.{key}": value for key, value in data.items()} | opts
    return [*TOY, *(word for pair in own.items() for word in pair)]


def detection_cache(tree):
    tree.cfg()
    keys = [record["image_id"] for record in DatasetCatalog.get(f"{tree.name}_unlabeled")]
    return write_detection_cache(tree.root / "boxes.npz", keys, [[5, 5, 30, 30]], [0.99], [1])


@pytest.mark.parametrize(
    "name",
    [
        *(f"voc_92/r101/{host}_wpl" for host in ("unimatch", "augseg", "u2pl", "ael", "mean_teacher")),
        *(f"cityscapes_1_16/r101/{host}_wpl" for host in ("unimatch", "augseg", "u2pl", "ael")),
        *("voc_92/r101/mean_teacher_ppw", "voc_92/r101/supervised", "coco_1_512/xception/unimatch_wpl"),
        *(f"voc_92/r101/unimatch_wpl_{knob}" for knob in KNOBS),
    ],
)
def test_each_host_and_knob_takes_a_step_on_each_data_set(tree, tmp_path, monkeypatch, name):
    assert name in RUNS
    recipe = Recipe.from_name(name)
    opts = {"SOLVER.MAX_ITER": "1", "TEST.EVAL_PERIOD": "0", "supervised": recipe.host == "supervised"}
    if recipe.weights == "_wpl":
        opts["MODEL.DETECTOR.CACHE"] = detection_cache(tree)
    cfg = load_cfg(str(recipe.config), [*recipe.overrides(ROOT), *toy(tree, OUTPUT_DIR=str(tmp_path / "run"), **opts)])
    setup_datasets(cfg)
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    monkeypatch.setattr(trainer.checkpointer, "save", lambda *args, **kwargs: None)
    if recipe.knob:
        assert KNOBS[f"{recipe.knob}_{recipe.value}"](trainer.framework) == float(recipe.value)
    before = {key: value.clone() for key, value in trainer.framework.student.state_dict().items()}
    trainer.train()
    after = trainer.framework.student.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[key], value) for key, value in after.items() if "predictor" in key)
    if recipe.host != "supervised":
        assert trainer.framework.last_step.pseudo_labels.labels.shape == (2, 65, 65)


@pytest.mark.slow
def test_what_run_trains_is_what_collect_reads(paper_tables, tree, tmp_path):
    root, table = tmp_path / "paper", tmp_path / "tables" / "table1.csv"
    opts = toy(tree, **{"SOLVER.MAX_ITER": "6", "TEST.EVAL_PERIOD": "3"})
    printed = paper_tables("run", "table1/voc_92/r101/unimatch", "--output", root, "--seed", 3, "--", *opts)
    assert "configs/voc/unimatch.yaml" in printed.splitlines()[0]
    paper_tables("collect", root, "--table", "table1", "--output", table)
    (row,) = (row for row in csv.DictReader(table.open()) if row["run"] == "voc_92/r101/unimatch")
    rows = map(json.loads, (root / "voc_92/r101/unimatch/seed_3/metrics.json").read_text().splitlines())
    scores = [row["sem_seg/mIoU"] for row in rows if "sem_seg/mIoU" in row]
    assert len(scores) == 2
    assert (float(row["best_mean"]), float(row["last_mean"])) == pytest.approx((max(scores), scores[-1]), abs=1e-4)
    assert (row["last_seeds"], row["last_spread"]) == ("1", "")
