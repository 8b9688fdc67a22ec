from dataclasses import fields

import numpy as np
import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2 import get_cfg
from wpl_d2.frameworks.mixing import (
    CutMixBoxes,
    beta_boxes,
    crossing_boxes,
    cutmix,
    cutmix_masks,
    half_boxes,
    square_boxes,
)
from wpl_d2.structures import PseudoLabels

HALF_SIZE = (40, 60)


def edges(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def test_boxes_are_boxes_of_the_given_area_and_ratio():
    torch.manual_seed(0)
    masks = cutmix_masks(300, (80, 120), 1.0, (0.02, 0.4), (0.3, 1 / 0.3))
    assert masks.shape == (300, 80, 120)
    assert masks.dtype == torch.bool
    areas, ratios = [], []
    for mask in masks:
        top, bottom, left, right = edges(mask)
        height, width = bottom - top, right - left
        assert mask.sum() == height * width
        areas.append(height * width / (80 * 120))
        ratios.append(height / width)
    assert 0.015 < min(areas) < 0.05
    assert 0.3 < max(areas) <= 0.4
    assert 0.28 < min(ratios) < 0.6
    assert 1.5 < max(ratios) < 3.6
    covered = masks.any(0)
    assert covered.float().mean() > 0.95
    assert all(covered[rows].any() for rows in (0, -1))


def plain_boxes(rng, count, size, area, ratio):
    """UniMatch's recipe, one box after the other: rows of height, width, top and left."""
    height, width = size
    boxes = []
    for _ in range(count):
        pixels = rng.uniform(*area) * height * width
        while True:
            aspect = rng.uniform(*ratio)
            h, w = int((pixels * aspect) ** 0.5), int((pixels / aspect) ** 0.5)
            top, left = rng.integers(height), rng.integers(width)
            if top + h <= height and left + w <= width:
                break
        boxes.append((h, w, top, left))
    return np.array(boxes)


@pytest.mark.parametrize(
    ("size", "area", "ratio"),
    [
        ((161, 161), (0.02, 0.4), (0.3, 1 / 0.3)),  # UniMatch's
        ((90, 160), (0.02, 0.4), (0.3, 1 / 0.3)),
        ((160, 90), (0.02, 0.4), (0.3, 1 / 0.3)),
        ((128, 128), (0.25, 0.5), (0.5, 2)),
        ((128, 128), (0.3, 0.3), (0.3, 1 / 0.3)),
        ((64, 96), (0.02, 0.6), (1, 1)),
        ((96, 96), (0.5, 0.7), (0.5, 2)),  # few tries fit
    ],
)
def test_boxes_are_distributed_as_published(size, area, ratio):
    torch.manual_seed(0)
    masks = cutmix_masks(2000, size, 1.0, area, ratio)
    found = np.array([(b - t, r - x, t, x) for t, b, x, r in map(edges, masks)])
    expected = plain_boxes(np.random.default_rng(0), 2000, size, area, ratio)
    for measure in (lambda h, w, top, left: h * w, lambda h, w, top, left: h / w, lambda h, w, *corner: corner):
        for ours, theirs in zip(np.atleast_2d(measure(*found.T)), np.atleast_2d(measure(*expected.T)), strict=True):
            error = 5 * theirs.std() * (2 / len(theirs)) ** 0.5 + 1e-6
            assert ours.mean() == pytest.approx(theirs.mean(), abs=error)
            deciles = [np.quantile(values, np.arange(0.1, 1, 0.1)) for values in (ours, theirs)]
            assert deciles[0] == pytest.approx(deciles[1], abs=0.06 * np.ptp(theirs) + 1e-6)


def test_boxes_of_unimatch_cover_a_fifth_of_the_image():
    """Area is drawn once: drawn again with each try, its mean would be .14, and nine in ten below .29."""
    torch.manual_seed(1)
    areas = cutmix_masks(3000, (161, 161), 1.0, (0.02, 0.4), (0.3, 1 / 0.3)).float().mean((1, 2))
    assert areas.mean() == pytest.approx(0.206, abs=0.008)
    deciles = areas.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    assert deciles == pytest.approx([0.054, 0.206, 0.357], abs=0.015)


def test_probability_and_seed():
    torch.manual_seed(1)
    masks = cutmix_masks(400, (20, 20), 0.5, (0.1, 0.2), (1, 1))
    assert 150 < masks.flatten(1).any(1).sum() < 250
    assert not cutmix_masks(50, (20, 20), 0.0, (0.1, 0.2), (1, 1)).any()
    torch.manual_seed(1)
    assert torch.equal(masks, cutmix_masks(400, (20, 20), 0.5, (0.1, 0.2), (1, 1)))


@pytest.mark.parametrize("area", [(0.8, 0.95), (0.9, 0.9), (1.0, 1.0)])
def test_a_box_that_fits_nowhere_it_was_drawn_is_moved_inside(area):
    torch.manual_seed(0)
    masks = cutmix_masks(100, (60, 80), 1.0, area, (0.7, 0.8))
    areas = masks.float().mean((1, 2))
    assert area[0] - 0.03 < areas.min() and areas.max() <= area[1]


def test_a_box_that_is_too_high_is_cut_off():
    torch.manual_seed(0)
    masks = cutmix_masks(20, (10, 100), 1.0, (0.5, 0.5), (8, 8))
    assert masks.flatten(1).any(1).all()
    assert masks.any(2).all()


def test_a_config_says_which_boxes_are_drawn():
    cfg = get_cfg()
    cfg.merge_from_list(["FRAMEWORK.CUTMIX.PROB", 1.0, "FRAMEWORK.CUTMIX.AREA", (0.1, 0.3)])
    torch.manual_seed(3)
    (masks,) = CutMixBoxes(cfg)([torch.zeros(5, 3, 20, 30)])
    torch.manual_seed(3)
    assert torch.equal(masks, cutmix_masks(5, (20, 30), 1.0, (0.1, 0.3), (0.3, 1 / 0.3)))
    assert masks.flatten(1).any(1).all()


@pytest.mark.parametrize("partner", [None, torch.tensor([2, 0, 0])])
def test_every_field_moves_with_the_pixels(partner):
    shape = (3, 6, 8)
    torch.manual_seed(0)
    pseudo = PseudoLabels(
        labels=torch.randint(0, 9, shape),
        confidence=torch.rand(shape),
        valid=torch.rand(shape) < 0.5,
        reliable=torch.rand(shape) < 0.5,
        weight=torch.rand(shape),
    )
    images = torch.rand(3, 3, 6, 8)
    masks = cutmix_masks(3, shape[1:], 1.0, (0.2, 0.4), (0.5, 2))
    mixed, moved = cutmix(images, pseudo, masks, partner)
    for i, j in enumerate([2, 0, 1] if partner is None else partner.tolist()):
        assert torch.equal(mixed[i], torch.where(masks[i], images[j], images[i]))
        for field in fields(PseudoLabels):
            before, after = getattr(pseudo, field.name), getattr(moved, field.name)
            assert torch.equal(after[i], torch.where(masks[i], before[j], before[i])), field.name


@pytest.mark.parametrize("seed", range(20))
def test_half_boxes_have_half_the_area_and_lie_inside(seed):
    torch.manual_seed(seed)
    masks = half_boxes(3, HALF_SIZE, 1.0)
    assert masks.shape == (3, *HALF_SIZE) and masks.dtype == torch.bool
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        height, width = len(rows), len(columns)
        assert mask.sum() == height * width
        assert rows[-1] - rows[0] + 1 == height and columns[-1] - columns[0] + 1 == width
        assert 30 <= width <= 60
        # As near to a half as whole rows can be.
        assert abs(height * width - 1200) <= width / 2
    assert not torch.equal(masks[0], masks[1])


def test_width_and_place_of_half_boxes_are_spread():
    torch.manual_seed(0)
    masks = half_boxes(4000, HALF_SIZE, 1.0)
    widths = masks.any(dim=1).sum(dim=1).float()
    assert widths.min() == 30 and widths.max() >= 58
    assert widths.mean() == pytest.approx(44.5, abs=0.5)
    corners = masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean(dim=0)
    assert corners.min() > 0.004 and corners.max() < 2 * corners.min()


def test_half_boxes_are_in_all_images_of_a_batch_or_in_none():
    torch.manual_seed(0)
    mixed = torch.stack([half_boxes(4, HALF_SIZE, 0.5).flatten(1).any(dim=1) for _ in range(200)])
    assert torch.equal(mixed.any(dim=1), mixed.all(dim=1))
    assert 70 < mixed[:, 0].sum() < 130
    assert not half_boxes(4, HALF_SIZE, 0.0).any()


def test_half_boxes_wait_for_no_device():
    with forbid_host_sync():
        half_boxes(2, HALF_SIZE, 0.5)


def plain_crossing_boxes(rng, size, area):
    """CPS's recipe for one image: three boxes, each drawn over what is there by exchanging inside and outside."""
    mask = np.zeros(size, dtype=bool)
    for _ in range(3):
        share = rng.uniform(*area)
        tall = np.exp(rng.uniform() * np.log(share))
        height, width = (round(n * part / 3**0.5) for n, part in zip(size, (tall, share / tall), strict=True))
        top, left = round(rng.uniform() * (size[0] - height)), round(rng.uniform() * (size[1] - width))
        mask[top : top + height, left : left + width] ^= True
    return mask


def test_crossing_boxes_are_distributed_as_in_the_recipe():
    torch.manual_seed(0)
    rng, size, area = np.random.default_rng(0), (48, 64), (0.25, 0.5)
    found = crossing_boxes(4000, size, 1.0, area)
    expected = torch.from_numpy(np.stack([plain_crossing_boxes(rng, size, area) for _ in range(4000)]))
    # How much of an image they cover, where, and how far they reach across it.
    for measure in (lambda m: m.flatten(1), lambda m: m.any(dim=1), lambda m: m.any(dim=2)):
        ours, theirs = (measure(masks).float().mean(dim=1) for masks in (found, expected))
        assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)
        assert ours.std().item() == pytest.approx(theirs.std().item(), abs=0.01)
    assert (found.float().mean(dim=0) - expected.float().mean(dim=0)).abs().max() < 0.05


def test_images_without_crossing_boxes():
    torch.manual_seed(0)
    mixed = crossing_boxes(400, (20, 30), 0.25, (0.25, 0.5)).flatten(1).any(dim=1)
    assert 60 < mixed.sum() < 140
    assert not crossing_boxes(50, (20, 30), 0.0, (0.25, 0.5)).any()


def test_crossing_boxes_do_not_depend_on_the_device():
    torch.manual_seed(0)
    with forbid_host_sync(on_meta=True):
        assert crossing_boxes(2, (20, 30), 1.0, (0.25, 0.5), "meta").shape == (2, 20, 30)


def plain_beta_boxes(rng, size, batch):
    """PS-MT's recipe: boxes of one size for a batch, around centers of their own."""
    side = (1 - rng.beta(4, 4)) ** 0.5
    masks = np.zeros((batch, *size), dtype=bool)
    for mask in masks:
        (top, bottom), (left, right) = (
            (max(0, center - int(n * side) // 2), min(n, center + int(n * side) // 2))
            for n, center in ((n, rng.integers(n // 8, n)) for n in size)
        )
        mask[top:bottom, left:right] = True
    return masks


def test_beta_boxes_are_distributed_as_in_the_recipe():
    torch.manual_seed(0)
    rng, size = np.random.default_rng(0), (48, 64)
    found = torch.stack([beta_boxes(2, size, 1.0) for _ in range(3000)])
    expected = torch.from_numpy(np.stack([plain_beta_boxes(rng, size, 2) for _ in range(3000)]))
    for measure in (lambda m: m.flatten(2), lambda m: m.any(dim=2), lambda m: m.any(dim=3)):
        ours, theirs = (measure(masks).float().mean(dim=2) for masks in (found, expected))
        assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)
        # The images of a batch have boxes of one size, of which other parts are cut off.
        assert torch.corrcoef(ours.T)[0, 1].item() == pytest.approx(torch.corrcoef(theirs.T)[0, 1].item(), abs=0.05)
    assert (found.float().mean(dim=(0, 1)) - expected.float().mean(dim=(0, 1))).abs().max() < 0.05
    assert not beta_boxes(4, size, 0.0).any()


def test_beta_boxes_wait_for_no_device():
    with forbid_host_sync():
        beta_boxes(2, HALF_SIZE, 1.0)


def test_squares_lie_around_any_pixel():
    torch.manual_seed(0)
    masks = square_boxes(4000, (40, 60), 10)
    shapes = {(bottom - top, right - left) for top, bottom, left, right in map(edges, masks)}
    assert max(shapes) == (10, 10) and {min(side) for side in shapes} == {5, 6, 7, 8, 9, 10}
    # A pixel is in the squares of a hundred centers, and one in a corner in those of 5 * 5.
    covered = 2400 * masks.float().mean(dim=0)
    assert covered[10:30, 10:50].mean().item() == pytest.approx(100, rel=0.05)
    assert covered[0, 0].item() == pytest.approx(30, abs=15)
    assert not square_boxes(3, (40, 60), 0).any()


def test_squares_do_not_depend_on_the_device():
    torch.manual_seed(0)
    with forbid_host_sync(on_meta=True):
        assert square_boxes(2, (20, 30), 8, "meta").shape == (2, 20, 30)
