"""How far classes can be told apart by their color."""

import cv2
import numpy as np
import pytest

from wpl_d2.data.class_colors import class_colors, color_kappa


def painted(path, colors):
    """An image of vertical stripes, one for each class, and its mask."""
    mask = np.repeat(np.arange(len(colors)), 8)[None].repeat(16, axis=0)
    cv2.imwrite(str(path), np.array(colors, np.uint8)[mask][..., ::-1])
    return {"file_name": str(path)}, mask


def test_colors_are_the_means_of_each_class(tmp_path):
    record, mask = painted(tmp_path / "image.png", [(255, 0, 0), (0, 0, 255), (90, 90, 90)])
    mask[0, 0], mask[:, 16:19] = 255, 5
    colors = class_colors(record, mask, num_classes=5)
    lab = cv2.cvtColor(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), cv2.COLOR_RGB2LAB)
    np.testing.assert_array_equal(colors[:2], lab[0, :, 1:])
    np.testing.assert_array_equal(colors[2], (128, 128))
    assert np.isnan(colors[3:]).all()
    mask[:, 20:] = 255  # leaves 16 pixels of the gray
    assert np.isnan(class_colors(record, mask, num_classes=5)[2]).all()


def test_images_that_no_training_uses_have_no_colors(tmp_path):
    record, mask = painted(tmp_path / "image.png", [(255, 0, 0), (0, 0, 255)])
    assert np.isnan(class_colors(record, mask[:, 1:], 2)).all()
    (tmp_path / "image.png").write_bytes(b"broken")
    assert np.isnan(class_colors(record, mask, 2)).all()


def test_kappa_is_that_of_a_search_for_the_nearest_mean():
    rng = np.random.default_rng(0)
    colors = rng.normal(size=(9, 4, 2)) + np.arange(4)[:, None]
    colors[rng.random((9, 4)) < 0.3] = np.nan
    colors[1:, 3] = np.nan  # in one image at most
    classes, hits = range(3), {c: [] for c in range(3)}
    for image in range(9):
        for c in classes:
            if not np.isnan(colors[image, c, 0]):
                others = colors.copy()
                others[image, c] = np.nan
                gaps = [np.linalg.norm(colors[image, c] - np.nanmean(others[:, other], axis=0)) for other in classes]
                hits[c].append(np.argmin(gaps) == c)
    accuracy = np.mean([np.mean(hits[c]) for c in classes])
    assert color_kappa(colors) == pytest.approx((accuracy - 1 / 3) / (2 / 3))
    assert color_kappa(colors[:1]) == 0


@pytest.mark.parametrize(("name", "split"), [("camvid", "1_30"), ("nyuv2", "1_16"), ("voc_animals", "1_16")])
def test_color_does_not_tell_what_is_in_photos(name, split, shared):
    root = shared / name
    ids = (root / f"splits/{split}_labeled.txt").read_text().split()
    colors = [
        class_colors({"file_name": str(root / f"images/{i}.jpg")}, cv2.imread(str(root / f"masks/{i}.png"), 0), 13)
        for i in ids
    ]
    assert -0.1 < color_kappa(np.stack(colors)) < 0.3
