import hashlib
from pathlib import Path

import pytest

from wpl_d2.data import check_training_data
from wpl_d2.data.datasets.lists import Entry, parse_line, read_list
from wpl_d2.data.path_templates import extract

CITY = ("leftImg8bit/{id}_leftImg8bit.png", "gtFine/{id}_gtFine_labelTrainIds.png")
VOC = ("JPEGImages/{id}.jpg", "SegmentationClass/{id}.png")


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("2007_1", Entry("2007_1", "JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png")),
        ("JPEGImages/a.jpg", Entry("a", "JPEGImages/a.jpg", "SegmentationClass/a.png")),
        ("elsewhere/a.jpg", Entry("elsewhere/a", "elsewhere/a.jpg", "")),
        ("JPEGImages/a.jpg other/a.png", Entry("a", "JPEGImages/a.jpg", "other/a.png")),
        ("a.jpg", Entry("a", "JPEGImages/a.jpg", "SegmentationClass/a.png")),
        ("a.png", Entry("a", "a.png", "")),
        ("JPEGImages/a b.jpg\tother/a b.png", Entry("a b", "JPEGImages/a b.jpg", "other/a b.png")),
    ],
)
def test_every_published_form_of_a_line(line, entry):
    assert parse_line(line, *VOC) == entry


def test_the_mask_of_an_image_path_follows_from_its_id():
    entry = parse_line("leftImg8bit/train/ulm/ulm_0_leftImg8bit.png", *CITY)
    assert entry == Entry(
        "train/ulm/ulm_0",
        "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png",
        "gtFine/train/ulm/ulm_0_gtFine_labelTrainIds.png",
    )


def test_extract_inverts_a_template():
    assert extract("{id}/{id}.jpg", "a/a.jpg") == "a"
    assert extract("{id}/{id}.jpg", "a/b.jpg") is None
    assert extract("x+{id}.jpg", "x+1.jpg") == "1"
    assert extract("x.{id}.jpg", "xy1.jpg") is None
    assert extract("x/{id}.*", "x/a.b.JPG") == "a.b"
    assert extract("x/{id}.*", "x/a") is None


def test_paths_below_the_root_may_be_absolute(tmp_path):
    other = tmp_path / "other.jpg"
    other.touch()
    root = tmp_path / "VOC"
    whole = Entry("a", "JPEGImages/a.jpg", "SegmentationClass/a.png")
    for line in ("/JPEGImages/a.jpg", f"{root}/JPEGImages/a.jpg", "/JPEGImages/a.jpg /SegmentationClass/a.png"):
        assert parse_line(line, *VOC, root) == whole
    assert parse_line(str(other), *VOC, Path("/")).image == str(other)[1:]


def test_the_root_may_go_by_the_name_of_a_link(tmp_path):
    (tmp_path / "disk/JPEGImages").mkdir(parents=True)
    (tmp_path / "disk/JPEGImages/a.jpg").touch()
    (tmp_path / "VOC").symlink_to(tmp_path / "disk")
    for one, other in (("disk", "VOC"), ("VOC", "disk")):
        entry = parse_line(f"{tmp_path}/{one}/JPEGImages/a.jpg", *VOC, tmp_path / other)
        assert entry == Entry("a", "JPEGImages/a.jpg", "SegmentationClass/a.png")


@pytest.mark.parametrize(
    "line",
    [
        *("../a", "../../etc/passwd", "JPEGImages/../../a.jpg", "a/../../b", "..", "x/.."),
        *("JPEGImages/a.jpg ../a.png", "JPEGImages/a.jpg\t/{other}", "/../a.jpg", "/{other}"),
    ],
)
def test_nothing_leads_out_of_the_root(tmp_path, line):
    other = tmp_path / "other.png"
    other.touch()
    file = tmp_path / "list.txt"
    file.write_text("2007_1\n" + line.replace("/{other}", str(other)))
    message = (
        r"list\.txt, line 2: '.*' leads out of the root .*VOC; put the file, or a link to it, below, or set 'root'"
    )
    with pytest.raises(ValueError, match=message):
        read_list(file, *VOC, tmp_path / "VOC")


def test_dots_in_names_lead_nowhere(tmp_path):
    for image_id in ("a..b", "..a", "a...", "x/a..b"):
        assert parse_line(image_id, *VOC, tmp_path).image == f"JPEGImages/{image_id}.jpg"


def test_links_in_the_root_may_lead_anywhere(tree):
    elsewhere = tree.root.parent / "elsewhere.png"
    tree.image("val0").rename(elsewhere)
    tree.image("val0").symlink_to(elsewhere)
    check_training_data(tree.cfg())


def test_blank_lines_windows_ends_and_a_missing_newline(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\n\r\n  \nb")
    assert [entry.id for entry in read_list(file, *VOC)] == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_list_in_another_encoding_is_named(tmp_path, encoding):
    file = tmp_path / "list.txt"
    file.write_text("a\n\xe9\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"list\.txt: is not UTF-8 text.*; save it as UTF-8"):
        read_list(file, *VOC)


def test_a_line_with_too_many_fields_is_named(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a\nb c d\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: 'b c d' has 3 fields; write"):
        read_list(file, *VOC)


def test_the_published_lists_have_their_published_sizes(shared):
    folder = shared / "splits"
    read = 0
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name, count = line.split()
        file = folder / name
        if not file.is_file() or "coco" in name:
            continue
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
        entries = read_list(file, *(CITY if "cityscapes" in name else VOC))
        assert len(entries) == len({entry.id for entry in entries}) == int(count)
        assert all(entry.mask for entry in entries)
        read += 1
    assert read > 20


def test_labeled_and_unlabeled_make_the_whole_of_voc(shared):
    folder = shared / "splits" / "unimatch" / "pascal"
    labeled = {entry.id for entry in read_list(shared / "splits/u2pl/pascal/92/labeled.txt", *VOC)}
    assert labeled == {entry.id for entry in read_list(folder / "92" / "labeled.txt", *VOC)}
    unlabeled = {entry.id for entry in read_list(shared / "splits/u2pl/pascal/92/unlabeled.txt", *VOC)}
    everything = {entry.id for entry in read_list(folder / "train_aug.txt", *VOC)}
    assert not labeled & unlabeled
    assert labeled | unlabeled == everything
