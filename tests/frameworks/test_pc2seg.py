import logging
import math

import pytest
import torch
from helpers import PC2SEG, SMALL

from wpl_d2 import build_framework
from wpl_d2.frameworks.pc2seg import PixelPairs
from wpl_d2.structures import IGNORE

CPU = torch.device("cpu")


def test_negatives_are_cells_of_other_labels():
    # Cells of one label have one direction, and unlabeled ones that of label 0.
    labels = torch.tensor([[[0, 2, 2], [1, IGNORE, 0]], [[1, 1, IGNORE], [2, 0, 2]]])
    maps = torch.eye(3)[labels.masked_fill(labels == IGNORE, 0)].permute(0, 3, 1, 2)
    contrast = PixelPairs(200, 7, temperature=0.5)
    torch.manual_seed(0)
    loss = contrast(5 * maps, 3 * maps, labels, contrast.random_samples(CPU))
    near = math.exp(1 / 0.5)
    assert loss.item() == pytest.approx(-math.log(near / (near + 7)), rel=1e-5)


def test_every_labeled_cell_is_an_anchor_and_moves():
    labels = torch.arange(6).view(1, 2, 3) % 4
    labels[0, 0, 0] = IGNORE
    first = torch.randn(1, 8, 2, 3, requires_grad=True)
    contrast = PixelPairs(300, 4, temperature=0.5)
    torch.manual_seed(0)
    contrast(first, torch.randn(1, 8, 2, 3), labels, contrast.random_samples(CPU)).backward()
    moved = first.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, labels != IGNORE)


def test_cells_of_one_label_have_nothing_to_differ_from():
    first = torch.randn(2, 8, 2, 3, requires_grad=True)
    contrast = PixelPairs(10, 4, temperature=0.5)
    loss = contrast(first, torch.randn(2, 8, 2, 3), torch.ones(2, 2, 3).long(), contrast.random_samples(CPU))
    loss.backward()
    assert loss == 0 and (first.grad == 0).all()


def test_the_log_says_that_it_is_a_reconstruction(tree, caplog):
    with caplog.at_level(logging.INFO):
        build_framework(tree.cfg(*SMALL, *PC2SEG))
    assert "PC2Seg is a reconstruction" in caplog.text
