"""With the same weights the presets' networks compute what plain ones, written from the published descriptions, do."""

from pathlib import Path

import pytest
import torch
from plain_deeplab import HOSTS, PlainDeepLab
from torch import nn

from wpl_d2 import build_model
from wpl_d2.config import load_cfg

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def build(host):
    """A narrow ResNet-50 with all heads, in float64 and without dropout; random statistics, so that all norms count."""
    torch.manual_seed(0)
    opts = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.RESNETS.DEPTH", 50]
    narrow = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8]
    cfg = load_cfg(str(CONFIGS / f"voc/{host}.yaml"), opts + narrow)
    cfg.MODEL.AUX_HEAD.ENABLED = host in ("u2pl", "ael")  # U2PL's on Cityscapes alone
    model = build_model(cfg).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1), module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


@pytest.mark.parametrize("host", HOSTS)
@torch.no_grad()
def test_the_network_is_the_published_one(host):
    model = build(host)
    for size in ((65, 65), (64, 64), (48, 70)):  # odd and even sizes of what the stem pools
        for training in (False, True):
            # Before the forward that moves the statistics.
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            images = torch.randn(2, 3, *size, dtype=torch.double)
            features = model.train(training).encode(images)
            found = model.decode(features, size)
            logits, auxiliary, embedding, representation = PlainDeepLab(weights, host, training).outputs(images)
            torch.testing.assert_close(found.logits, logits, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(found.embedding, embedding, rtol=1e-8, atol=1e-8)
            assert (auxiliary is not None) == (host in ("u2pl", "ael"))
            if auxiliary is not None:
                torch.testing.assert_close(model.aux_head(features, size), auxiliary, rtol=1e-8, atol=1e-8)
            assert (representation is not None) == (host == "u2pl")
            if training and representation is not None:
                torch.testing.assert_close(found.representation, representation, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("host", HOSTS)
def test_the_heads_begin_as_pytorch_draws_convolutions(host):
    """Uniform between -1 and 1 over the root of the fan-in, biases too."""
    model = build(host)
    heads = [model.sem_seg_head] + ([] if model.aux_head is None else [model.aux_head])
    convs = [module for head in heads for module in head.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) > 8
    for conv in convs:
        bound = conv.weight[0].numel() ** -0.5
        assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.03)
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        if conv.bias is not None:
            assert 0 < conv.bias.abs().max() <= bound


@pytest.mark.parametrize("host", HOSTS)
def test_dropout_stands_where_it_is_published(host):
    head = build(host).sem_seg_head
    aspp, fuse = head.decoder["res5"]["project_conv"], head.decoder["res2"]["fuse_conv"]
    dropouts = [name for name, module in head.named_modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    if host in ("unimatch", "augseg"):
        assert dropouts == [] and aspp.dropout == 0
        return
    fork = fuse.fuse if host == "u2pl" else fuse
    modules = [aspp.project.activation[1], fork[0].activation[1], head.dropout]
    if host == "u2pl":
        modules += [fuse.representation[1], fuse.representation[3]]
    assert len(dropouts) == len(modules) and {type(module) for module in modules} == {nn.Dropout2d}
    assert aspp.dropout == 0
