"""CorrMatch's head: logits that spread by correlation maps, and the maps of some cells."""

import pytest
import torch

from wpl_d2 import build_model
from wpl_d2.modeling.heads import Correlation

NAME = ["MODEL.METHOD_HEAD.NAME", "CorrelationHead", "MODEL.METHOD_HEAD.CHANNELS", 16]
CLASSES = 5


def make(make_cfg, *opts):
    torch.manual_seed(0)
    model = build_model(make_cfg(*NAME, *opts))
    return model.method_head, model.encode(torch.randn(2, 3, 64, 96))


def everywhere(*size):
    return torch.ones(2, *size, dtype=torch.bool)


def drawn(height, width):
    torch.manual_seed(0)
    return Correlation(*torch.randn(2, 2, CLASSES, height, width).requires_grad_().unbind())


def half_valid(height, width):
    valid = everywhere(height, width)
    valid[1, :, width // 2 :] = False
    return valid


@pytest.mark.parametrize("align", [True, False])
def test_logits_spread_by_the_maps_and_none_come_from_padding(make_cfg, align):
    head, _ = make(make_cfg, "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align)
    correlation, logits, valid = drawn(4, 6), torch.randn(2, CLASSES, 4, 6), half_valid(4, 6)
    found = head.propagate(correlation, logits, valid)
    score = torch.einsum("bchw,bcij->bhwij", *correlation) / CLASSES**0.5
    score = score.masked_fill(~valid[:, None, None], -torch.inf).flatten(3).softmax(3)
    expected = torch.einsum("bhwn,bcn->bchw", score, logits.flatten(2))
    torch.testing.assert_close(found, expected)
    # Of pixels the cells' logits are the resized ones, and so the other way round.
    pixels = head.resize(logits, (32, 48))
    found = head.propagate(correlation, pixels, head.resize(valid[:, None].float(), (32, 48))[:, 0] > 0.5)
    cells = torch.einsum("bhwn,bcn->bchw", score, head.resize(pixels, (4, 6)).flatten(2))
    torch.testing.assert_close(found, head.resize(cells, (32, 48)))


def test_maps_are_scaled_within_the_image(make_cfg):
    head, _ = make(make_cfg)
    correlation, inside = drawn(4, 6), half_valid(4, 6)
    cells = torch.tensor([[0, 23, 7], [1, 1, 6]])
    found = head.maps(correlation, cells, inside)
    for image, row in enumerate(cells.tolist()):
        for number, cell in enumerate(row):
            query = correlation.query[image].flatten(1)[:, cell]
            alike = (query @ correlation.key[image].flatten(1) / CLASSES**0.5).softmax(0)[inside[image].flatten()]
            own = found[image, number][inside[image]]
            torch.testing.assert_close(own, (alike - alike.min()) / (alike.max() - alike.min()))
    assert (found.masked_select(~inside[:, None]) == 0).all() and not found.requires_grad
    nothing = head.maps(correlation, cells, torch.zeros_like(inside))
    flat = head.maps(Correlation(correlation.query, torch.ones(2, CLASSES, 4, 6)), cells, inside)
    assert (nothing == 0).all() and (flat == 0).all()


def test_gradients_reach_its_layers_and_the_features_but_not_the_logits(make_cfg):
    head, features = make(make_cfg)
    logits = torch.randn(2, CLASSES, 64, 96, requires_grad=True)
    features["res5"].retain_grad()
    head.propagate(head(features), logits, everywhere(64, 96)).square().sum().backward()
    assert logits.grad is None and features["res5"].grad.any()
    reached = {name for name, parameter in head.named_parameters() if parameter.grad.any()}
    # The same for all cells of a map, a key's bias changes nothing.
    assert reached | {"key.bias"} == dict(head.named_parameters()).keys()


def test_a_step_keeps_no_map_of_every_cell(make_cfg):
    head, _ = make(make_cfg)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.numel()), lambda _: None):
        head.propagate(drawn(32, 48), torch.randn(2, CLASSES, 64, 96), everywhere(64, 96))
    assert 2 * CLASSES * 32 * 48 <= max(sizes) < (32 * 48) ** 2 / 10


def test_mixed_precision_leaves_it_alone(make_cfg):
    head, _ = make(make_cfg)
    correlation, logits, cells = drawn(4, 6), torch.randn(2, CLASSES, 32, 48), torch.tensor([[0, 5], [2, 7]])
    expected = head.propagate(correlation, logits, everywhere(32, 48)), head.maps(correlation, cells, everywhere(4, 6))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.propagate(correlation, logits, everywhere(32, 48)), expected[0])
        assert torch.equal(head.maps(correlation, cells, everywhere(4, 6)), expected[1])


@pytest.mark.parametrize(("norm", "biased"), [("BN", False), ("GN", False), ("", True)])
def test_a_bias_stands_where_no_norm_follows(make_cfg, norm, biased):
    head, features = make(make_cfg, "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32], "MODEL.SEM_SEG_HEAD.NORM", norm,
                          "MODEL.METHOD_HEAD.CHANNELS", 32)  # fmt: skip
    assert (head.conv.bias is not None) == biased
    assert head(features).query.shape == (2, CLASSES, *features["res5"].shape[-2:])
