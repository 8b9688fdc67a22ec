import functools
import http.server
import threading
from pathlib import Path

import pytest

from wpl_d2.data import load_description
from wpl_d2.data.preparation import BENCHMARKS, import_lists, published_lists, write_unlabeled_lists
from wpl_d2.data.preparation.splits import keys_digest, read_list_keys

VOC, CITYSCAPES, COCO = (BENCHMARKS[name] for name in ("voc", "cityscapes", "coco"))


def read(benchmark, root, name):
    return read_list_keys(benchmark, root, name)


@pytest.mark.parametrize(
    ("benchmark", "folder", "count"),
    [(VOC, "unimatch", 13), (VOC, "u2pl", 11), (CITYSCAPES, "unimatch", 7), (CITYSCAPES, "u2pl", 6), (COCO, ".", 6)],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_published_list_is_imported_and_its_split_completed(shared, tmp_path, benchmark, folder, count):
    imported, unknown = import_lists(benchmark, tmp_path, str(shared / "splits" / folder))
    assert (len(imported), unknown) == (count, [])
    assert all(item.exact for item in imported)
    problems = write_unlabeled_lists(benchmark, tmp_path)
    description = load_description(benchmark.description, tmp_path)
    for name, known in published_lists(benchmark.name).items():
        file = tmp_path / f"splits/{name}.txt"
        if file.exists():
            keys = [record["image_id"] for record in description.records(name)]
            assert len(keys) == len(set(keys)) == known.images
            assert keys_digest(read(benchmark, tmp_path, name)) == known.digest
    labeled = [item.name for item in imported if item.name.endswith("_labeled")]
    rest = [tmp_path / "splits" / f"{name.replace('labeled', 'unlabeled')}.txt" for name in labeled]
    if benchmark is COCO:
        assert not any(file.exists() for file in rest)
        assert "train.txt: has 0 images, not all that 1_128_unlabeled, " in problems[0]
    else:
        assert all(file.exists() for file in rest)
        assert problems == []


def test_labeled_and_unlabeled_are_the_training_list(shared, tmp_path):
    import_lists(VOC, tmp_path, str(shared / "splits"))
    write_unlabeled_lists(VOC, tmp_path)
    train = read(VOC, tmp_path, "train")
    assert len(train) == 10582
    for split in load_description(VOC.description).splits:
        labeled, unlabeled = (read(VOC, tmp_path, f"{split}_{kind}") for kind in ("labeled", "unlabeled"))
        assert not labeled & unlabeled
        assert labeled | unlabeled == train


def in_other_format(text, style):
    for line in text.split():
        city, sequence, frame = Path(line).name.removesuffix("_leftImg8bit.png").split("_")
        key = f"{city}_{sequence}_{frame}"
        yield {
            "CPS": f"/images/train/{key}.png\t/segmentation/train/{key}_gtFine.png\n",
            "AEL": f"leftImg8bit/train/{city}/{key}_leftImg8bit.png gtFine/{city}/{key}_gtFine_labelTrainIds.png\n",
            "bare": f"{key}\r\n",
        }[style]


@pytest.mark.parametrize("style", ["CPS", "AEL", "bare"])
def test_another_format_gives_the_same_list(shared, tmp_path, style):
    published = (shared / "splits/u2pl/cityscapes/186/labeled.txt").read_text()
    source = tmp_path / "source"
    source.mkdir()
    (source / "any_name.txt").write_bytes("".join(reversed(list(in_other_format(published, style)))).encode())
    (source / "notes.txt").write_text("nothing of this\n")
    ((item,), _) = import_lists(CITYSCAPES, tmp_path / "other", str(source))
    assert (item.name, item.file, item.exact) == ("u2pl_1_16_labeled", "any_name.txt", False)
    import_lists(CITYSCAPES, tmp_path / "own", str(shared / "splits/u2pl"))
    written = [tmp_path / name / "splits/u2pl_1_16_labeled.txt" for name in ("other", "own")]
    assert written[0].read_bytes() == written[1].read_bytes()
    assert written[0].read_text().startswith("train/aachen/aachen_000008_000019\n")


@pytest.fixture
def source(shared, tmp_path):
    """A copy of one published list, below the path of its publication."""
    file = tmp_path / "source/pascal/92/labeled.txt"
    file.parent.mkdir(parents=True)
    file.write_bytes((shared / "splits/u2pl/pascal/92/labeled.txt").read_bytes())
    return tmp_path / "source"


def test_a_changed_list_is_refused_and_nothing_written(source, tmp_path):
    file = source / "pascal/92/labeled.txt"
    file.write_text(file.read_text().replace("2007_000733", "2007_000032"))
    with pytest.raises(ValueError, match=r"pascal/92/labeled\.txt: is not the list published .* 92 images"):
        import_lists(VOC, tmp_path, str(source))
    assert not (tmp_path / "splits").exists()


def test_a_changed_list_below_another_path_is_named(source, shared, tmp_path):
    cut = source / "183.txt"
    lines = (shared / "splits/u2pl/pascal/183/labeled.txt").read_text().splitlines()
    cut.write_text("\n".join(lines[:-1]))
    (source / "notes.txt").write_text("nothing of this\n")
    imported, (problem,) = import_lists(VOC, tmp_path, str(source))
    assert [item.name for item in imported] == ["92_labeled"]
    assert problem.startswith(f"{cut}: its 182 images are not a published list; fetch it again")
    (source / "pascal/92/labeled.txt").unlink()
    with pytest.raises(ValueError, match=r"has no published list of voc(.|\n)*183\.txt: its 182 images"):
        import_lists(VOC, tmp_path, str(source))


def test_labeled_images_in_the_unlabeled_list_are_told(source, tmp_path):
    import_lists(VOC, tmp_path, str(source))
    labeled = sorted(read(VOC, tmp_path, "92_labeled"))
    (tmp_path / "splits/92_unlabeled.txt").write_text("\n".join(["2008_000009", *labeled[:2]]))
    (problem,) = write_unlabeled_lists(VOC, tmp_path)
    assert f"92_unlabeled.txt: has 2 images of 92_labeled.txt too, such as {labeled[0]}; take it away" in problem


def test_an_own_list_is_not_overwritten_and_a_cut_one_completed(source, tmp_path):
    file = tmp_path / "splits/92_labeled.txt"
    file.parent.mkdir()
    file.write_text("2007_000032\n")
    with pytest.raises(ValueError, match=r"92_labeled\.txt: has 1 images, .* take it away"):
        import_lists(VOC, tmp_path, str(source))
    assert file.read_text() == "2007_000032\n"
    file.write_text("2007_000733\n")
    import_lists(VOC, tmp_path, str(source))
    assert len(read(VOC, tmp_path, "92_labeled")) == 92
    published = "\n".join(
        f"JPEGImages/{key}.jpg SegmentationClass/{key}.png" for key in read(VOC, tmp_path, "92_labeled")
    )
    file.write_text(published)
    import_lists(VOC, tmp_path, str(source))
    assert file.read_text() == published


def test_the_rest_of_an_incomplete_training_list_is_no_unlabeled_list(source, tmp_path):
    import_lists(VOC, tmp_path, str(source))
    labeled = read(VOC, tmp_path, "92_labeled")
    (tmp_path / "splits/train.txt").write_text("\n".join([*labeled, "2008_000009"]))
    (problem,) = write_unlabeled_lists(VOC, tmp_path)
    assert "train.txt: has 93 images, not all that 92_unlabeled must be made of" in problem
    assert not (tmp_path / "splits/92_unlabeled.txt").exists()
    # As many as there should be, but others.
    others = [f"2020_{i:06d}" for i in range(10490)]
    (tmp_path / "splits/train.txt").write_text("\n".join([*labeled, *others]))
    assert len(write_unlabeled_lists(VOC, tmp_path)) == 1


@pytest.mark.parametrize(("content", "message"), [(None, "no such folder"), ("", "has no published list of voc")])
def test_a_source_without_lists_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists/a.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        import_lists(VOC, tmp_path, str(tmp_path / "lists"))


@pytest.fixture
def address(source, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=source)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_lists_come_from_an_address_too(address, source, tmp_path):
    ((item,), _) = import_lists(VOC, tmp_path / "http", address)
    assert (item.name, item.file, item.exact) == ("92_labeled", "pascal/92/labeled.txt", True)
    import_lists(VOC, tmp_path / "file", source.as_uri())
    assert read(VOC, tmp_path / "http", "92_labeled") == read(VOC, tmp_path / "file", "92_labeled")
    with pytest.raises(ValueError, match="has no published list of coco"):
        import_lists(COCO, tmp_path, address)
    with pytest.raises(ValueError, match="cannot be read"):
        import_lists(VOC, tmp_path, "http://127.0.0.1:9/lists")
