import re
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from scipy import ndimage

from wpl_d2.checkpoint import load_model
from wpl_d2.cli import main
from wpl_d2.data import read_image
from wpl_d2.data.datasets.lists import read_list
from wpl_d2.inference.suggestion import Choice, ImageJudge, choose_images, judge_images
from wpl_d2.report.suggestion import write_suggestions
from wpl_d2.utils.errors import InputError

STRIDE = 4


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def judge(loaded):
    return ImageJudge(*loaded, "cpu")


def plainly(probabilities):
    """Objects as (class, share, weight) and the trust, pixel by pixel: probabilities (C, H, W) float64."""
    labels, confidence = probabilities.argmax(0), probabilities.max(0)
    height, width = labels.shape
    rows, columns = (
        np.floor((np.arange(-(-length // STRIDE)) + 0.5) * length / -(-length // STRIDE)).astype(int)
        for length in (height, width)
    )
    cells = labels[np.ix_(rows, columns)]
    cell_confidence = confidence[np.ix_(rows, columns)]
    objects, total, parts = [], 0.0, 0.0
    for class_id in range(len(probabilities)):
        numbers, count = ndimage.label(cells == class_id, np.ones((3, 3)))
        for number in range(1, count + 1):
            own = cell_confidence[numbers == number]
            weight = float((own * own.mean()).mean())
            objects.append((class_id, len(own) / cells.size, weight))
            total, parts = total + weight * len(own) ** 0.5, parts + len(own) ** 0.5
    return objects, total / parts


def test_trust_and_objects_are_those_of_a_plain_count(judge, loaded, images):
    several = 0
    for name in ("val0", "val1", "labeled0"):
        image = read_image(images / f"{name}.png")
        (judged,) = judge([image])
        with torch.no_grad():
            logits = loaded[0].segment(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float())[0]
        objects, trust = plainly(logits.double().softmax(0).numpy())
        assert judged.trust == pytest.approx(trust, abs=1e-5)
        ours = sorted((found.share, found.class_id, found.weight) for found in judged.objects)
        np.testing.assert_allclose(ours, sorted((share, own, weight) for own, share, weight in objects), atol=1e-5)
        shares = [found.share for found in judged.objects]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
        np.testing.assert_array_equal(judged.labels, logits.argmax(0))
        several += len(objects) > 3
    assert several


def test_images_of_a_batch_are_judged_as_each_alone_also_by_windows(loaded, images):
    slide = ["TEST.INFERENCE.MODE", "slide", "TEST.INFERENCE.CROP_SIZE", "(32, 32)"]
    slide += ["TEST.INFERENCE.STRIDE", "(16, 16)", "TEST.INFERENCE.WINDOW_BATCH", "3"]
    both = [read_image(images / f"{name}.png") for name in ("val0", "val1")]
    for opts in ([], slide, ["TEST.INFERENCE.FLIP", "True"]):
        judge = ImageJudge(*loaded, "cpu", opts)
        together, apart = judge(both), [judge([image])[0] for image in both]
        for ours, alone in zip(together, apart, strict=True):
            assert ours.trust == pytest.approx(alone.trust, abs=1e-4)
            np.testing.assert_allclose(ours.embedding, alone.embedding, rtol=1e-4, atol=1e-5)
        assert not np.allclose(together[0].embedding, together[1].embedding, rtol=1e-3)
    model = loaded[0]
    with torch.no_grad():
        pixels = model.normalize(torch.from_numpy(both[0].copy()).permute(2, 0, 1)[None])
        embedding = model.decode(model.encode(pixels), pixels.shape[-2:]).embedding.mean(dim=(2, 3))[0]
    plain = ImageJudge(*loaded, "cpu")(both)[0].embedding
    np.testing.assert_allclose(plain, embedding, rtol=1e-4, atol=1e-5)


def test_the_least_trusted_of_each_group_is_chosen():
    rng = np.random.default_rng(0)
    centers = np.eye(3, 8, dtype=np.float32)
    group = rng.permutation(np.repeat([0, 1, 2], [30, 9, 3]))
    # Of one direction, whatever their length.
    embeddings = (centers[group] + rng.normal(0, 0.02, (42, 8)).astype(np.float32)) * rng.uniform(1, 9, (42, 1))
    trust = rng.permutation(np.linspace(0.1, 0.9, 42))
    trust[group == 2] += 1
    chosen = choose_images(trust, embeddings.astype(np.float32), 3)
    least = sorted(
        (int(np.flatnonzero(group == g)[trust[group == g].argmin()]) for g in range(3)), key=trust.__getitem__
    )
    assert [choice.index for choice in chosen] == least
    order = np.argsort(trust).tolist()
    sizes = {0: 30, 1: 9, 2: 3}
    assert chosen == [Choice(index, order.index(index) + 1, sizes[group[index]], 1) for index in least]


def test_equal_images_are_one_group():
    trust = np.array([0.5, 0.2, 0.4, 0.3])
    assert [choice.index for choice in choose_images(trust, np.ones((4, 2), np.float32), 3)] == [1, 3, 2]
    pairs = np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    assert [(choice.index, choice.group_rank) for choice in choose_images(trust, pairs, 9)] == [
        *((1, 1), (3, 1)),
        *((2, 2), (0, 2)),
    ]
    assert [choice.index for choice in choose_images(trust[:1], np.zeros((1, 2), np.float32), 2)] == [0]


def test_what_cannot_be_read_is_named_and_left_out(judge, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((images / "val0.png").read_bytes()[:300])
    files = [images / "val0.png", broken, images / "val1.png"]
    said = []
    survey = judge_images(judge, [{"file_name": str(file)} for file in files], 4, said.append)
    assert [record["file_name"] for record in survey.records] == [str(files[0]), str(files[2])]
    assert survey.trust.shape == (2,) and len(survey.embeddings) == 2
    assert len(said) == 1 and re.match(rf"left out: {re.escape(str(broken))}", said[0])
    with pytest.raises(InputError, match="none of its 1 images can be judged"):
        judge_images(judge, [{"file_name": str(broken)}], 4, said.append)


def test_a_path_with_spaces_is_a_line_of_a_list(judge, loaded, images, tmp_path):
    shutil.copy(images / "val0.png", tmp_path / "two words.png")
    survey = judge_images(judge, [{"file_name": str(tmp_path / "two words.png")}], 1, pytest.fail)
    choices = choose_images(survey.trust, survey.embeddings, 5)
    write_suggestions(tmp_path / "next.html", tmp_path, judge, survey, choices, loaded[1])
    (entry,) = read_list(tmp_path / "next.txt", "{id}.png", "", tmp_path)
    assert entry.image == "two words.png"


@pytest.fixture
def no_masks(trained):
    """The data set's masks are away."""
    masks, away = trained / "set" / "masks", trained / "set" / "away"
    masks.rename(away)
    yield
    away.rename(masks)


def test_the_command_takes_any_checkpoint_and_opens_no_mask(trained, tmp_path, no_masks, capsys):
    page = tmp_path / "next" / "suggested.html"
    command = ["suggest", str(trained), "-n", "2", "--output", str(page), "--batch-size", "2", "--device", "cpu"]
    assert main(command) == 0
    name = load_model(str(trained / "model_final.pth"))[1]["config"].DATASETS.UNLABELED[0]
    unlabeled = [record["file_name"] for record in DatasetCatalog.get(name)]
    chosen = page.with_suffix(".txt").read_text().splitlines()
    assert len(chosen) == len(set(chosen)) == 2 and set(chosen) < set(unlabeled)
    assert f"2 of {len(unlabeled)} images suggested, 0 left out" in capsys.readouterr().out
    html = page.read_text()
    assert html.count("data:image/webp;base64,") == 6 and all(file.rsplit("/")[-1] in html for file in chosen)
    # What is labeled is no candidate, in whatever list it is.
    labeled = name.replace("unlabeled", "labeled")
    with pytest.raises(SystemExit):
        main([*command, "--dataset", labeled])
    assert "--dataset: there is no unlabeled image to choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--dataset", f"{name[:-1]}s"])
    assert f"--dataset: '{name[:-1]}s' is not a list" in capsys.readouterr().err
    assert main([*command, "--dataset", labeled, name, "--weights", str(trained / "model_final.pth")]) == 0
    assert page.with_suffix(".txt").read_text().splitlines() == chosen
    with pytest.raises(SystemExit):
        main(["suggest", str(tmp_path)])
    assert "has no checkpoint; give the folder of a training" in capsys.readouterr().err
