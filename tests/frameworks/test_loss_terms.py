import pytest
import torch
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.frameworks.loss_terms import consistency_term, supervised_term
from wpl_d2.losses import cross_entropy, ohem_mask, reduce_term
from wpl_d2.structures import IGNORE, PseudoLabels


def test_confident_valid_pixels_train_by_their_weight():
    """Four pixels: weighted, below the threshold, at it, padding."""
    logits = torch.tensor([[0.0, 1, 2, 3], [1.0, 0, 0, 0]]).view(1, 2, 1, 4)
    pseudo = PseudoLabels(
        labels=torch.tensor([[[0, 0, 1, IGNORE]]]),
        confidence=torch.tensor([[[0.9, 0.49, 0.5, 1.0]]]),
        valid=torch.tensor([[[True, True, True, False]]]),
        reliable=torch.zeros(1, 1, 4, dtype=torch.bool),
        weight=torch.tensor([[[0.2, 1.0, 2.0, 1.0]]]),
    )
    term = consistency_term("loss", logits, pseudo, threshold=0.5, coefficient=0.25)
    losses = cross_entropy(logits, pseudo.labels).flatten()
    expected = 0.2 * losses[0] + 2.0 * losses[2]
    torch.testing.assert_close(reduce_term(term), 0.25 * expected / 3)
    torch.testing.assert_close(reduce_term(term, "weight_sum"), 0.25 * expected / 3.2)


def test_hard_labeled_pixels_alone_make_the_mean():
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(2, 3, 6, 7), torch.randint(0, 3, (2, 6, 7))
    target[0] = IGNORE
    hard = ohem_mask(logits, target, 0.7, min_kept=5)
    assert 5 <= hard.sum() < 42
    losses = cross_entropy(logits, target)
    found = reduce_term(supervised_term("loss", logits, target, {"threshold": 0.7, "min_kept": 5}, coefficient=0.5))
    torch.testing.assert_close(found, losses[hard].mean() / 2)
    torch.testing.assert_close(reduce_term(supervised_term("loss", logits, target)), losses[1].mean())


def test_the_config_switches_ohem_on(tree):
    opts = ["FRAMEWORK.OHEM.ENABLED", True, "FRAMEWORK.OHEM.THRESHOLD", 0.6, "FRAMEWORK.OHEM.MIN_KEPT", 7]
    assert build_framework(tree.cfg(*SMALL, *opts)).ohem == {"threshold": 0.6, "min_kept": 7}
    assert build_framework(tree.cfg(*SMALL)).ohem is None
    with pytest.raises(ValueError, match=r"FRAMEWORK\.OHEM\.MIN_KEPT: 0 is out of its range; give a whole"):
        build_framework(tree.cfg(*SMALL, *opts[:-1], 0))
