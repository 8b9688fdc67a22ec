"""Ranges of values: how images lie in them, and which are proposed."""

import cv2
import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.pixel_values import RGB, PixelLayout
from wpl_d2.data.value_range import measure_channels, measure_fit, propose_layout, range_notes
from wpl_d2.utils.errors import InputError

TWELVE_BITS = PixelLayout(value_range=((0.0, 4095.0),) * 3)


def test_what_lies_outside_and_what_is_no_number_is_counted():
    layout = PixelLayout(("a", "b"), ((0.0, 10.0), (5.0, 6.0)))
    fit = measure_fit(np.float32([[[0, 5], [10, 6], [11, 5.5], [np.nan, 4]]]), layout)
    assert fit.outside == 3 / 8
    assert fit.bright == pytest.approx(1.1, abs=0.01)


def test_the_check_names_images_outside_of_the_range(tree):
    tree.describe(value_range=[0, 4095])
    for place, file in enumerate(sorted((tree.root / "images").iterdir())):
        cv2.imwrite(str(file), np.asarray(Image.open(file)).astype(np.uint16) * (16 if place else 64))
    notes = report_dataset(load_description(tree.yaml), 20).notes
    (note,) = (note for note in notes if "value_range" in note)
    assert note.startswith(f"{min((tree.root / 'images').iterdir())}: 7") and "% of its values lie outside" in note


def test_many_images_outside_are_counted_and_the_worst_named():
    fits = {str(place): measure_fit(np.full((2, 2, 3), 5000 if place < 9 else 9), TWELVE_BITS) for place in range(12)}
    notes = range_notes(fits, TWELVE_BITS)
    assert len(notes) == 6 and "4 more images have over 5%" in notes[-1]


def test_a_range_in_which_all_is_black_is_noted():
    dark = {
        "a": measure_fit(np.full((2, 2, 3), 10), TWELVE_BITS),
        "b": measure_fit(np.full((2, 2, 3), 41), TWELVE_BITS),
    }
    (note,) = range_notes(dark, TWELVE_BITS)
    assert note.startswith(
        "b: is the brightest image, and nearly black: its values reach 1.0% of 'value_range' ([0, 40"
    )
    assert not range_notes(dark | {"c": measure_fit(np.full((2, 2, 3), 3000), TWELVE_BITS)}, TWELVE_BITS)


def test_percentiles_are_proposed_for_each_channel_that_is_no_color(tmp_path):
    rng, files = np.random.default_rng(0), []
    for place in range(3):
        values = (rng.random((200, 200, 4)) * [100, 1000, 10000, 1] + [0, 50, 0, 7]).astype(np.uint16)
        values[0, 0] = 65535
        np.save(tmp_path / f"{place}.npy", values)
        files.append(tmp_path / f"{place}.npy")
    layout = propose_layout(files)
    assert layout.channels == ("channel 1", "channel 2", "channel 3", "channel 4")
    expected = [(0, 99), (55, 1045), (50, 9950), (7, 8)]
    np.testing.assert_allclose(layout.value_range, expected, rtol=0.03, atol=1)
    assert all(value == round(value) for pair in layout.value_range for value in pair)


def test_gray_and_colors_get_one_range(tmp_path):
    ramp = np.linspace(-1, 1, 10000, dtype=np.float32).reshape(100, 100)
    assert cv2.imwrite(str(tmp_path / "gray.tif"), ramp, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    layout = propose_layout([tmp_path / "gray.tif"])
    assert layout.channels == RGB.channels
    np.testing.assert_allclose(layout.value_range, [(-0.99, 0.99)] * 3, atol=1e-3)


def test_eight_bits_of_colors_need_nothing_and_of_other_channels_no_range(tmp_path):
    Image.new("RGBA", (8, 6)).save(tmp_path / "a.png")
    assert propose_layout([tmp_path / "a.png"]) == RGB
    np.save(tmp_path / "a.npy", np.zeros((6, 8, 5), np.uint8))
    assert propose_layout([tmp_path / "a.npy"]).value_range == ()


def test_images_of_different_channels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 8, 5), np.uint16))
    np.save(tmp_path / "b.npy", np.zeros((6, 8, 4), np.uint16))
    with pytest.raises(InputError, match=r"b\.npy: has 4 channels, and .*a\.npy 5; say which are the images"):
        propose_layout([tmp_path / "a.npy", tmp_path / "b.npy"])


def test_a_broken_image_is_left_to_the_check_and_close_values_stay_apart(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(1000.01, 1000.02, 64).reshape(8, 8))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:200])
    low, high = propose_layout([tmp_path / "a.npy", tmp_path / "b.npy"]).value_range[0]
    assert 1000.01 < low < high < 1000.02


def test_means_and_deviations_are_those_of_the_scaled_images(tmp_path):
    values = np.stack([np.tile([0, 100], (4, 4)), np.full((4, 8), 50)], axis=2).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    layout = PixelLayout(("a", "b"), ((0.0, 100.0),) * 2)
    mean, deviation = measure_channels([{"file_name": str(tmp_path / "a.npy"), "layout": layout}] * 2)
    assert mean == pytest.approx((127.5, 127.5)) and deviation == pytest.approx((127.5, 0.001), abs=1e-3)
