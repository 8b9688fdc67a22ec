"""The paper's figures of a short training: they are drawn, and their numbers equal brute-force computations."""

import csv
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, SMALL_DETECTOR
from PIL import Image

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.engine import Trainer, read_metrics, read_prototypes
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trainings of four steps, with rank and with cosine weights; checkpoints and prototypes of every second."""
    from helpers import make_tree

    tree = make_tree(tmp_path_factory.mktemp("paper_figures"))
    folders = []
    for kind in ("rank", "cosine"):
        output = tree.root / "runs" / kind
        output.mkdir(parents=True)
        cfg = tree.cfg(
            *[*SMALL, *SMALL_DETECTOR, "WEIGHTING.KIND", (kind,), "WEIGHTING.RECORD_PERIOD", 2, "SOLVER.MAX_ITER", 4],
            *["SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.CHECKPOINTS_TO_KEEP", 9, "TEST.EVAL_PERIOD", 4, "WEIGHTING.K", 40],
            *["SOLVER.BASE_LR", 0.02, "WEIGHTING.MIN_COUNT", 1, "OUTPUT_DIR", str(output)],
        )
        cfg.freeze()
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        trainer.resume_or_load(False)
        (output / "config.yaml").write_text(cfg.dump())
        trainer.train()
        folders.append(output)
    return folders


@pytest.fixture
def draw(monkeypatch, tmp_path, runs):
    """Draws a figure; returns its CSV's rows as dicts."""
    import paper_figures

    def call(figure, *words, of=runs):
        monkeypatch.setattr(sys, "argv", ["x", "draw", figure, *map(str, of), "--output", str(tmp_path), *words])
        args = paper_figures.parse_args()
        args.call(args)
        with Image.open(tmp_path / f"{figure}.png") as picture:
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 10
        assert "<svg" in (tmp_path / f"{figure}.svg").read_text()
        with (tmp_path / f"{figure}.csv").open() as file:
            return list(csv.DictReader(file))

    return call


def predictions(folder, file="model_final.pth"):
    """A checkpoint of a training, its memory, and what its model makes of the validation images."""
    from wpl_figures.trained import read_trainings

    ((*_, last),) = read_trainings([folder])
    snapshot = next(s for s in read_trainings([folder])[0] if s.file.name == file) if file != last.file.name else last
    memory = snapshot.weigher.memory
    return snapshot, memory, list(snapshot.label(snapshot.dataset()))


def test_weights(draw, runs):
    rows = draw("1")
    assert {row["run"] for row in rows} == {"runs/rank", "runs/cosine"}
    _snapshot, _, images = predictions(runs[0])
    for row, image in zip(rows, images, strict=False):
        weight, target, labels = image.pseudo.weight[0], image.target[0], image.pseudo.labels[0]
        total, count = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        for y in range(target.shape[0]):
            for x in range(target.shape[1]):
                if target[y, x] != IGNORE:
                    side = bool(labels[y, x] == target[y, x])
                    total[side] += float(weight[y, x])
                    count[side] += 1
        assert float(row["weight where right"]) == pytest.approx(total[True] / count[True], rel=1e-4)
        assert float(row["weight where wrong"]) == pytest.approx(total[False] / count[False], rel=1e-4)


def test_images_can_be_chosen(draw, runs):
    rows = draw("1", "--choose", "val1", of=runs[:1])
    assert [row["image"] for row in rows] == ["val1"]
    with pytest.raises(InputError, match=r"--choose: paper_figures.*_val has no image 'val7'; did you mean"):
        draw("1", "--choose", "val7", of=runs[:1])


@pytest.mark.parametrize("figure", ["5a", "6"])
def test_accuracy_over_training(draw, runs, figure):
    rows = draw(figure)
    steps = [(run, step) for run in ("runs/rank", "runs/cosine") for step in ("2", "4")]
    assert [(row["run"], row["step"]) for row in rows] == steps
    snapshot, _, images = predictions(runs[1])
    threshold = snapshot.cfg.FRAMEWORK.THRESHOLD
    known = torch.cat([(image.target != IGNORE).flatten() for image in images])
    right = torch.cat([(image.target == image.pseudo.labels).flatten() for image in images])[known]
    weight = torch.cat([image.pseudo.weight.flatten() for image in images])[known].double()
    confident = (torch.cat([image.pseudo.confidence.flatten() for image in images]) >= threshold)[known]
    if figure == "5a":
        assert float(rows[-1]["right"]) == pytest.approx(100 * float((confident & right).double().mean()))
        assert float(rows[-1]["wrong"]) == pytest.approx(100 * float((confident & ~right).double().mean()))
    else:
        share = (weight * confident * right).sum() / (weight * confident).sum()
        assert float(rows[-1]["accuracy"]) == pytest.approx(100 * float(share), rel=1e-5)


def test_variance_of_embeddings(draw, runs):
    rows = draw("5b", "--classes", "ground", of=runs[:1])
    _, _, images = predictions(runs[0])
    cells = []
    for image in images:
        h, w = image.embedding.shape[-2:]
        height, width = image.target.shape[-2:]
        for y in range(h):
            for x in range(w):
                place = 0, int((y + 0.5) * height / h), int((x + 0.5) * width / w)
                if image.target[place] == image.pseudo.labels[place] == 0:
                    cells.append(image.embedding[0, :, y, x].double().numpy())
    assert len(cells) > 1
    assert float(rows[-1]["variance"]) == pytest.approx(np.var(np.stack(cells), axis=0).mean(), rel=1e-4)


def test_hamming_distances(draw, runs):
    rows = draw("5c", of=runs[:1])
    snapshot, memory, images = predictions(runs[0])
    k, counts = snapshot.cfg.WEIGHTING.K, {}

    def code(vector):
        order = sorted(range(len(vector)), key=lambda channel: (-vector[channel], channel))[:k]
        return {channel for channel in order if vector[channel] > 0}

    prototypes = [code(vector) for vector in memory.prototypes.tolist()]
    for image in images:
        h, w = image.embedding.shape[-2:]
        height, width = image.target.shape[-2:]
        cells = [[code(image.embedding[0, :, y, x].tolist()) for x in range(w)] for y in range(h)]
        for y in range(height):
            for x in range(width):
                target, label = int(image.target[0, y, x]), int(image.pseudo.labels[0, y, x])
                if target != IGNORE:
                    cell = cells[int((y + 0.5) * h / height)][int((x + 0.5) * w / width)]
                    key = target == label, 2 * (k - len(cell & prototypes[label]))
                    counts[key] = counts.get(key, 0) + 1
    for side in ("wrong", "right"):
        own = {distance: n for (right, distance), n in counts.items() if right == (side == "right")}
        for row in rows:
            share = 100 * own.get(int(row["distance"]), 0) / sum(own.values())
            assert float(row[side]) == pytest.approx(share, abs=1e-9)


def test_miou_by_k(draw, runs):
    (row,) = draw("7")
    figures = [
        [r["sem_seg/mIoU"] for r in read_metrics(run / "metrics.json") if "sem_seg/mIoU" in r][-1] for run in runs
    ]
    assert (row["k"], row["runs"]) == ("40", "2")
    assert float(row["mIoU"]) == pytest.approx(np.mean(figures))
    assert float(row["deviation"]) == pytest.approx(np.std(figures, ddof=1))


def test_top_channels(draw, runs):
    rows = draw("s2", "--k", "3", "--classes", "ground,box", of=runs[:1])
    record = read_prototypes(runs[0])
    assert record.steps.tolist() == [2, 4]
    state = load_checkpoint(str(runs[0] / "model_final.pth"))["model"]
    bank = state["weigher.labeled_bank.ring"][0]
    assert record.counts[-1, 0] >= len(bank[bank.any(dim=1)]) > 0
    top = np.argsort(-record.prototypes[-1, 0], kind="stable")[:3]
    found = {int(row["channel"]) for row in rows if row["class"] == "ground" and row["step"] == "4"}
    assert found == {int(channel) for channel in top if record.prototypes[-1, 0, channel] > 0}


def test_attention(draw, runs):
    rows = draw("s4", "--classes", "ground,box", "--k", "100", of=runs[:1])
    snapshot, memory, images = predictions(runs[0])
    ground, box = (set(np.argsort(-vector, kind="stable")[:100]) for vector in memory.prototypes[:2].numpy())
    groups = {"both": ground & box, "ground": ground - box, "box": box - ground}
    found = [row for row in rows if row["on pixels of"] == "box"]
    assert any(float(row["mean attention"]) > 0 for row in found)
    for row in found:
        image = next(image for image in images if image.name == row["image"])
        size = image.image.shape[-2:]
        features = snapshot.model.encode(snapshot.model.normalize(image.image[None]))
        last = features["res5"].detach().requires_grad_()
        embedding = snapshot.model.decode({"res2": features["res2"].detach(), "res5": last}, size).embedding
        sum(embedding[0, channel].mean() for channel in sorted(groups[row["channels of"]])).backward()
        attention = sum(last.grad[0, c].mean() * last[0, c] for c in range(last.shape[1])).clamp(min=0).detach()
        attention = attention / max(float(attention.max()), 1e-30)
        shown = F.interpolate(attention[None, None], size, mode="bilinear")[0, 0]
        assert float(row["mean attention"]) == pytest.approx(float(shown[image.target[0] == 1].mean()), rel=1e-3)


def test_panels(draw, runs):
    rows = draw("s6")
    assert {row["run"] for row in rows} == {"runs/rank", "runs/cosine"} and len(rows) == 4
    _, _, images = predictions(runs[0])
    known = images[0].target != IGNORE
    share = 100 * (images[0].target == images[0].pseudo.labels)[known].double().mean()
    assert float(rows[0]["right pixels, %"]) == pytest.approx(float(share), rel=1e-6)
    boxes = draw("s5", "--score", "0.05")
    assert all(0 <= float(row["x0"]) <= float(row["x1"]) <= 60 for row in boxes)


@pytest.mark.parametrize(
    ("figure", "words", "message"),
    [
        ("5d", (), "FIGURE: '5d'"),
        ("s4", (), "s4 compares two classes"),
        ("s4", ("--classes", "ground,bix"), "'bix' is no class"),
        ("s2", (), "s2: draws one run"),
        ("1", ("--dataset", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_named(draw, figure, words, message):
    with pytest.raises(InputError, match=message):
        draw(figure, *words)


def test_a_folder_without_checkpoints_is_named(draw, tmp_path):
    (tmp_path / "config.yaml").write_text("VERSION: 2\n")
    with pytest.raises(InputError, match="holds no checkpoint"):
        draw("1", of=[tmp_path])
    with pytest.raises(InputError, match="none: no such folder"):
        draw("1", of=[tmp_path / "none"])
