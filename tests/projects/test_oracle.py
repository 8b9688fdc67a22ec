"""Oracles see the truth through the project's own mapper, change nothing else, and exist in the project alone."""

import itertools
import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from helpers import AEL, ALLSPARK, AUGSEG, DAW, PCR, PSMT, SMALL, U2PL, UNIMATCH, UNIMATCH_V2
from PIL import Image
from wpl_study.oracle import Oracle, OracleTrainer, TruthMapper, host_of, oracle_source, register_oracles

from wpl_d2 import build_framework
from wpl_d2.checkpoint import load_model
from wpl_d2.data import build_train_loader
from wpl_d2.data.loader import unlabeled_records
from wpl_d2.engine import Trainer
from wpl_d2.frameworks import FRAMEWORK_REGISTRY
from wpl_d2.frameworks.base import Framework
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {
    **{"AEL": AEL, "AugSeg": AUGSEG, "DAW": DAW, "MeanTeacher": [], "U2PL": U2PL, "UniMatch": UNIMATCH},
    "AllSpark": ALLSPARK,
    "PSMT": PSMT,
    "PCR": PCR,
    "UniMatchV2": UNIMATCH_V2,
}
PLAIN = [*SMALL, "WEIGHTING.ENABLED", False, "FRAMEWORK.THRESHOLD", 0.0]


@pytest.fixture
def oracles():
    """Their names; afterwards they are no more, for the tests of the package."""
    names = register_oracles()
    yield names
    for name in names:
        del FRAMEWORK_REGISTRY._obj_map[name]


def oracle_cfg(tree, kind, host, *opts):
    own = ["INPUT.SCALE_RANGE", (1.0, 1.0), *PLAIN, *HOSTS[host], "FRAMEWORK.NAME", f"Oracle{kind}{host}"]
    return tree.cfg(*own, *opts)


def step(cfg, source=None):
    torch.manual_seed(0)
    framework = build_framework(cfg)
    indices = framework.partner_indices()
    loader = build_train_loader(cfg, 0, deque(indices), source or oracle_source(cfg))
    torch.manual_seed(5)
    with EventStorage():
        return framework, framework(next(loader))


def test_each_semi_supervised_host_has_two(oracles):
    hosts = {name for name, host in FRAMEWORK_REGISTRY if host.semi_supervised and not issubclass(host, Oracle)}
    hosts -= {"CPS", "CorrMatch", "PC2Seg", "PrevMatch", "PseudoSeg", "SemiVL", "STPlusPlus"}
    assert hosts == set(HOSTS)
    assert sorted(oracles) == sorted(f"Oracle{kind}{host}" for kind in ("Weights", "Labels") for host in hosts)
    assert register_oracles() == oracles
    assert {host_of(name) for name in (*oracles, "Supervised", "UniMatch")} == {*hosts, "Supervised"}


def test_the_truth_moves_with_the_view_and_nothing_else_changes(tree):
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[0, 1, 2, 255]] = [[10, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]]
    for i in range(5):
        mask = np.asarray(Image.open(tree.mask(f"unlabeled{i}")))
        Image.fromarray(palette[mask]).save(tree.image(f"unlabeled{i}"))
    tree.mask("unlabeled2").unlink()
    cfg = tree.cfg("INPUT.CROP_SIZE", (45, 70), "INPUT.SCALE_RANGE", (1.0, 1.0))
    loaders = build_train_loader(cfg, source=oracle_source(cfg)), build_train_loader(cfg)
    bare = 0
    for ours, plain in zip(*(itertools.islice(loader, 10) for loader in loaders), strict=True):
        for mine, theirs in zip(ours["unlabeled"], plain["unlabeled"], strict=True):
            truth = mine.pop("truth")
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in ("image", "strong", "valid"))
            assert truth.dtype == torch.int64 and (truth[~mine["valid"]] == IGNORE).all()
            if mine["image_id"] == "unlabeled2":
                bare += 1
                assert (truth == IGNORE).all()
            else:
                colors = torch.from_numpy(palette[truth.numpy()]).permute(2, 0, 1)
                assert torch.equal(colors[:, mine["valid"]], mine["image"][:, mine["valid"]])
    assert bare


def test_a_mask_of_other_classes_is_named(tree):
    tree.write_mask("unlabeled0", np.full((50, 60), 7, dtype=np.uint8))
    cfg = tree.cfg()
    records, mapper = oracle_source(cfg)
    assert isinstance(mapper, TruthMapper)
    with pytest.raises(InputError, match=r"unlabeled0\.png: holds the ids \[7\], but there are 3 classes"):
        mapper(records[0])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", ["Weights", "Labels"])
def test_the_pseudo_labels_of_every_host_are_mended(tree, oracles, monkeypatch, host, kind):
    seen = []
    make_pseudo_labels = Framework.make_pseudo_labels

    def watched(self, items, prediction):
        pseudo = make_pseudo_labels(self, items, prediction)
        seen.append((pseudo, torch.stack([item["truth"] for item in items])))
        return pseudo

    monkeypatch.setattr(Framework, "make_pseudo_labels", watched)
    framework, losses = step(oracle_cfg(tree, kind, host))
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_unsup"] > 0
    ((before, truth),) = seen
    after = framework.last_step.pseudo_labels
    known = truth != IGNORE
    assert known.any() and not known.all()
    assert torch.equal(after.confidence, before.confidence) and torch.equal(after.valid, before.valid)
    if kind == "Labels":
        assert torch.equal(after.labels, truth) and (after.weight == 1).all()
        return
    assert torch.equal(after.labels, before.labels)
    for place in itertools.product(*(range(0, size, 7) for size in truth.shape)):
        right = known[place] and before.labels[place] == truth[place]
        assert after.weight[place] == float(right)
    mean = framework.last_step.scalars["pseudo/weight"]
    assert mean == pytest.approx((after.weight[after.valid]).mean().item())


@pytest.mark.parametrize("host", ["MeanTeacher", "UniMatch"])
def test_where_every_label_is_right_an_oracle_is_its_host(tree, oracles, host):
    """The truth is what the host predicts, so neither the oracle's weights nor its labels change anything."""
    cfg = tree.cfg(*PLAIN, *HOSTS[host], "FRAMEWORK.NAME", host)
    plain, expected = step(cfg)
    said = {}
    for index, item in enumerate(plain.last_step.weak_views):
        said[item.numpy().tobytes()] = plain.last_step.pseudo_labels.labels[index]
    records, mapper = oracle_source(cfg)

    class Agreeing:
        def __call__(self, record):
            sample = mapper(record)
            return sample | {"truth": said.get(sample["image"].numpy().tobytes(), sample["truth"])}

    for kind in ("Weights", "Labels"):
        ours = tree.cfg(*PLAIN, *HOSTS[host], "FRAMEWORK.NAME", f"Oracle{kind}{host}")
        _, losses = step(ours, (records, Agreeing()))
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, expected[name])


def test_an_oracle_trains_and_its_checkpoint_says_so(tree, oracles, tmp_path):
    opts = ["SOLVER.MAX_ITER", 2, "OUTPUT_DIR", str(tmp_path / "out")]
    cfg = oracle_cfg(tree, "Weights", "MeanTeacher", *opts)
    cfg.freeze()
    Path(cfg.OUTPUT_DIR).mkdir()
    torch.manual_seed(0)
    trainer = OracleTrainer(cfg)
    trainer.train()
    model, metadata = load_model(str(tmp_path / "out" / "model_final.pth"))
    assert metadata["config"].FRAMEWORK.NAME == "OracleWeightsMeanTeacher"
    assert not model.training
    # The package's own trainer has no truth to give.
    torch.manual_seed(0)
    with pytest.raises(KeyError, match="truth"):
        Trainer(cfg).train()


def test_refusals(tree, oracles):
    cfg = oracle_cfg(tree, "Labels", "MeanTeacher", "WEIGHTING.ENABLED", True)
    with pytest.raises(InputError, match=r"WEIGHTING\.ENABLED: OracleLabelsMeanTeacher takes the place of weights"):
        build_framework(cfg)
    for i in range(5):
        tree.mask(f"unlabeled{i}").unlink()
    with pytest.raises(InputError, match=r"no image of \S+_unlabeled has a mask, which an oracle needs; leave"):
        oracle_source(tree.cfg())


def test_the_packages_records_stay_without_masks(tree, oracles):
    cfg = tree.cfg()
    assert any("sem_seg_file_name" in record for record in oracle_source(cfg)[0])
    assert not any("sem_seg" in key for record in unlabeled_records(cfg) for key in record)


@pytest.mark.slow
def test_no_command_of_the_package_knows_an_oracle_and_the_projects_knows_nothing_else(tree, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(tree.cfg(*PLAIN, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(tmp_path / "out")).dump())

    def refused(tool, *words):
        command = [sys.executable, str(ROOT / tool), "--config-file", str(config), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr[-2000:]
        return done.stderr.splitlines()[-1]

    name = "OracleWeightsMeanTeacher"
    assert f"'{name}' is not known; did you mean MeanTeacher" in refused("tools/train_net.py", "FRAMEWORK.NAME", name)
    oracle = "projects/WeightStudy/train_oracle.py"
    assert "'MeanTeacher' is not known; did you mean OracleLabelsMeanTeacher" in refused(oracle)
    assert "--eval-only: an oracle only trains" in refused(oracle, "--eval-only")
