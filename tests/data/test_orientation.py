"""The orientation in a file's EXIF data is applied once, whatever the format, or left alone."""

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import (
    EvalMapper,
    LabeledMapper,
    UnlabeledMapper,
    attach_component_boxes,
    check_training_data,
    load_description,
)
from wpl_d2.data import read_image as read
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.image_header import shown_size
from wpl_d2.data.image_io import read_mask, read_size
from wpl_d2.data.loader import labeled_records, unlabeled_records

# Of EXIF's standard: where the stored row 0 and the stored column 0 are to be seen.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
FORMATS = {
    "png": ("a.png", {}),
    "jpeg": ("a.jpg", {"quality": 95, "subsampling": 0}),
    "tiff": ("a.tif", {}),
    "tiff_lzw": ("b.tif", {"compression": "tiff_lzw"}),
    "tiff_deflate": ("c.tif", {"compression": "tiff_adobe_deflate"}),
    "webp": ("a.webp", {"lossless": True}),
}


def stored(upright, orientation):
    """The pixels that a file with this orientation has, one by one."""
    height, width = upright.shape[:2]
    first_row, first_column = SIDES[orientation]
    turned = first_row in ("left", "right")
    made = np.zeros((width, height, *upright.shape[2:]) if turned else upright.shape, upright.dtype)
    for row in range(made.shape[0]):
        for column in range(made.shape[1]):
            x, y = (row, column) if turned else (column, row)
            x = width - 1 - x if "right" in (first_row, first_column) else x
            y = height - 1 - y if "bottom" in (first_row, first_column) else y
            made[row, column] = upright[y, x]
    return made


def save(file, pixels, orientation, mode=None, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.fromarray(pixels, mode="P")
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(file, exif=exif, **options)


def picture(height=24, width=16):
    """Four corners of different colors in blocks that JPEG keeps."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:8, :8], pixels[:8, -8:] = (240, 20, 20), (20, 240, 20)
    pixels[-8:, :8], pixels[-8:, -8:] = (20, 20, 240), (240, 240, 240)
    return pixels


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("form", FORMATS)
def test_an_image_is_read_as_a_viewer_shows_it_or_as_it_is_stored(tmp_path, form, orientation):
    name, options = FORMATS[form]
    upright = picture()
    pixels = stored(upright, orientation)
    save(tmp_path / name, pixels, orientation, **options)
    for exif, expected in (("apply", upright), ("ignore", pixels)):
        found = read(tmp_path / name, exif=exif)
        assert found.shape == expected.shape and found.flags.c_contiguous
        assert np.abs(found.astype(int) - expected).max() <= (8 if form == "jpeg" else 0)
        assert read_size(tmp_path / name, exif) == expected.shape[:2]
    with Image.open(tmp_path / name) as header:
        assert shown_size(header) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("orientation", SIDES)
def test_a_gray_image_is_turned_too(tmp_path, orientation):
    upright = picture()[..., 0]
    pixels = stored(upright, orientation)
    save(tmp_path / "a.tif", pixels, orientation)
    assert (read(tmp_path / "a.tif") == upright[..., None]).all()
    assert (read(tmp_path / "a.tif", exif="ignore") == pixels[..., None]).all()


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize(
    ("name", "mode", "dtype"),
    [("m.png", "P", np.uint8), ("m.png", "L", np.uint8), ("m.tif", "L", np.uint8), ("m.tif", "I;16", np.uint16)],
)
def test_a_mask_is_turned_as_its_image_is(tmp_path, name, mode, dtype, orientation):
    upright = np.arange(6 * 4, dtype=dtype).reshape(6, 4)
    pixels = stored(upright, orientation)
    save(tmp_path / name, pixels, orientation, mode)
    np.testing.assert_array_equal(read_mask(tmp_path / name), upright)
    np.testing.assert_array_equal(read_mask(tmp_path / name, exif="ignore"), pixels)


def test_damaged_exif_data_turn_nothing(tmp_path):
    save(tmp_path / "a.jpg", picture(), 6)
    content = (tmp_path / "a.jpg").read_bytes()
    for place, value in ((content.index(b"Exif") + 6, b"XX"), (content.index(b"Exif") + 14, b"\xff\xff\xff\xff")):
        (tmp_path / "b.jpg").write_bytes(content[:place] + value + content[place + len(value) :])
        assert read(tmp_path / "b.jpg").shape == picture().shape
    save(tmp_path / "c.png", picture(), 9)  # a number that EXIF does not have
    assert (read(tmp_path / "c.png") == picture()).all()


@pytest.fixture
def turned(tree):
    """The tree with all images lying on their sides, by an orientation that shows them upright."""
    for file in (tree.root / "images").iterdir():
        save(file, stored(np.asarray(Image.open(file)), 6), 6)
    return tree


def lay_masks_down(tree):
    for file in (tree.root / "masks").iterdir():
        Image.fromarray(stored(np.asarray(Image.open(file)), 6)).save(file)


def test_every_reader_of_a_data_set_does_what_its_description_says(turned):
    upright = turned.cfg("MODEL.DETECTOR.MODE", "shared")
    check_training_data(upright)
    boxes = labeled_records(upright)[0]["boxes"]
    lay_masks_down(turned)
    with pytest.raises(ValueError, match=r"labeled0\.png: is 50x60 but its image .*write `exif: ignore` into the YAML"):
        check_training_data(upright)

    turned.name += "_as_stored"
    turned.describe(exif="ignore")
    cfg = turned.cfg("MODEL.DETECTOR.MODE", "shared")
    check_training_data(cfg)
    (record, *_), (unlabeled, *_) = labeled_records(cfg), unlabeled_records(cfg)
    for mapper, item in ((LabeledMapper(cfg), record), (UnlabeledMapper(cfg), unlabeled), (EvalMapper(), record)):
        sample = mapper(item)
        assert (sample["height"], sample["width"]) == (60, 50)
    # In a picture that lies on its side, x comes from y.
    assert sorted((box[3] - box[1], box[2] - box[0]) for box in record["boxes"]) == sorted(
        (box[2] - box[0], box[3] - box[1]) for box in boxes
    )


def test_boxes_are_computed_anew_when_masks_are_read_another_way(tree):
    save(tree.mask("labeled0"), np.pad(np.ones((10, 20), np.uint8), ((0, 40), (0, 40))), 3)
    record = {"sem_seg_file_name": str(tree.mask("labeled0"))}
    assert attach_component_boxes([record], (1,), 90)[0]["boxes"].tolist() == [[40, 40, 60, 50]]
    assert attach_component_boxes([record | {"exif": "ignore"}], (1,), 90)[0]["boxes"].tolist() == [[0, 0, 20, 10]]


def test_the_full_check_tells_of_tags_that_sizes_cannot_show(tree):
    assert report_dataset(load_description(tree.yaml), 90).notes == []
    for name, orientation in (("labeled0", 6), ("labeled1", 3), ("val0", 2)):
        pixels = np.asarray(Image.open(tree.image(name)))
        save(tree.image(name), stored(pixels, orientation), orientation)
    found = report_dataset(load_description(tree.yaml), 90)
    assert found.problems == []
    (note,) = found.notes
    assert note.startswith(
        f"{tree.image('labeled1')}: has an EXIF orientation, as 3 of the files have (2 keep their size"
    )
    assert note.endswith("where masks were drawn on the stored pixels, write `exif: ignore`")
    tree.describe(exif="ignore")
    found = report_dataset(load_description(tree.yaml), 90)
    assert [problem.split(":")[0] for problem in found.problems] == [str(tree.mask("labeled0"))]
    assert "it is ignored; where masks were drawn on what viewers show, write `exif: apply`" in found.notes[0]


def test_another_word_for_it_is_refused(tree):
    tree.describe(exif="off")
    with pytest.raises(ValueError, match=r"data\.yaml: 'exif': 'off' is not known; valid: apply, ignore"):
        load_description(tree.yaml)
    tree.describe(exif=False)
    with pytest.raises(ValueError, match=r"data\.yaml: 'exif': False is not known"):
        load_description(tree.yaml)


def test_where_a_file_keeps_its_orientation_does_not_matter(tmp_path):
    upright, pixels = picture(), stored(picture(), 6)
    save(tmp_path / "a.png", pixels, 6)
    content = (tmp_path / "a.png").read_bytes()
    start, end = (content.index(name) - 4 for name in (b"eXIf", b"IDAT"))
    last = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    page = Image.fromarray(pixels)
    save(tmp_path / "pages.tif", pixels, 6, save_all=True, append_images=[page])
    for name in ("a.png", "pages.tif"):
        assert (read(tmp_path / name) == upright).all()
        assert (read(tmp_path / name, exif="ignore") == pixels).all()
