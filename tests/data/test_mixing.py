from dataclasses import fields

import pytest
import torch

from wpl_d2 import get_cfg
from wpl_d2.data import cutmix, cutmix_masks
from wpl_d2.data.augmentation import CutMixBoxes
from wpl_d2.structures import PseudoLabels


def edges(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def test_boxes_are_boxes_of_the_asked_area_and_ratio():
    torch.manual_seed(0)
    masks = cutmix_masks(300, (80, 120), 1.0, (0.02, 0.4), (0.3, 1 / 0.3))
    assert masks.shape == (300, 80, 120)
    assert masks.dtype == torch.bool
    shares, ratios = [], []
    for mask in masks:
        top, bottom, left, right = edges(mask)
        height, width = bottom - top, right - left
        assert mask.sum() == height * width
        shares.append(height * width / (80 * 120))
        ratios.append(height / width)
    assert 0.015 < min(shares) < 0.05
    assert 0.3 < max(shares) <= 0.4
    assert 0.28 < min(ratios) < 0.6
    assert 1.5 < max(ratios) < 3.6
    covered = masks.any(0)
    assert covered.float().mean() > 0.95
    assert all(covered[rows].any() for rows in (0, -1))


def test_probability_and_seed():
    torch.manual_seed(1)
    masks = cutmix_masks(400, (20, 20), 0.5, (0.1, 0.2), (1, 1))
    assert 150 < masks.flatten(1).any(1).sum() < 250
    assert not cutmix_masks(50, (20, 20), 0.0, (0.1, 0.2), (1, 1)).any()
    torch.manual_seed(1)
    assert torch.equal(masks, cutmix_masks(400, (20, 20), 0.5, (0.1, 0.2), (1, 1)))


def test_a_box_that_cannot_fit_is_cut_off():
    torch.manual_seed(0)
    masks = cutmix_masks(20, (10, 100), 1.0, (0.5, 0.5), (8, 8))
    assert masks.flatten(1).any(1).all()


def test_a_config_says_which_boxes_are_drawn():
    cfg = get_cfg()
    cfg.merge_from_list(["FRAMEWORK.CUTMIX.PROB", 1.0, "FRAMEWORK.CUTMIX.AREA", (0.1, 0.3)])
    torch.manual_seed(3)
    masks = CutMixBoxes(cfg)(torch.zeros(5, 3, 20, 30))
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
