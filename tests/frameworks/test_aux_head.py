import pytest
import torch
from helpers import AEL, AUGSEG, SMALL, SMALL_DETECTOR, U2PL, UNIMATCH
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.engine.solver import build_optimizer
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

AUX = ["MODEL.AUX_HEAD.ENABLED", True]


def test_the_labeled_loss_has_a_second_part(tree):
    framework, batch = make(tree, *SMALL, *AUX, "MODEL.AUX_HEAD.DROPOUT", 0.0)
    losses = losses_of(framework, batch)
    assert losses.keys() == {"loss_sem_seg", "loss_aux", "loss_unsup"}
    images = framework.images(batch["labeled"], "image")
    target = framework.stack(batch["labeled"], "sem_seg")
    student = framework.student
    # A batch of the labeled images alone has other BN statistics: the whole step's are needed.
    student.eval()
    framework.iteration = 0
    framework.burn_in = 1
    found = losses_of(framework, batch)["loss_aux"]
    logits = student.aux_head(student.encode(images), target.shape[-2:])
    assert logits.shape == (2, 3, 48, 64)
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE)
    torch.testing.assert_close(found, 0.4 * expected)


@pytest.mark.parametrize(
    ("opts", "images"),
    [([], 4), (["INPUT.STRONG.VIEWS", 2], 6), (UNIMATCH, 4), (AUGSEG, 4), (U2PL, 4), (AEL, 2), (SMALL_DETECTOR, 4)],
    ids=["mean_teacher", "two_views", "unimatch", "augseg", "u2pl", "ael", "detector"],
)
def test_all_images_of_the_forward_give_it_their_statistics_and_the_labeled_ones_the_loss(tree, opts, images):
    # As in U2PL's published code; in AEL's the labeled images have a forward of their own.
    framework, batch = make(tree, *opts, *AUX, "MODEL.AUX_HEAD.DROPOUT", 0.0)
    for item in batch["labeled"]:
        item.pop("paste", None)
    seen = []
    head = framework.student.aux_head.layers
    head.register_forward_hook(lambda module, inputs, logits: seen.append((inputs[0], logits)))
    found = losses_of(framework, batch)["loss_aux"]
    ((features, logits),) = seen
    assert len(features) == images
    target = framework.stack(batch["labeled"], "sem_seg")
    logits = torch.nn.functional.interpolate(logits[:2], target.shape[-2:], mode="bilinear")
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE)
    factor = 0.2 if opts == UNIMATCH else 0.4  # UniMatch halves its losses
    torch.testing.assert_close(found, factor * expected)


def test_its_gradient_reaches_the_backbone_but_not_behind_its_feature(tree):
    framework, batch = make(tree, *SMALL, *AUX)
    losses_of(framework, batch)["loss_aux"].backward()
    body = framework.student.backbone.body
    assert body.layer3[0].downsample[-2].weight.grad.abs().sum() > 0
    assert body.layer4[0].conv1.weight.grad is None


def test_a_feature_that_the_backbone_lacks_is_refused(tree):
    cfg = tree.cfg(*SMALL, *AUX, "MODEL.AUX_HEAD.IN_FEATURE", "res6")
    with pytest.raises(InputError, match="the backbone has no res6; set it to one of res2, res3, res4, res5"):
        build_framework(cfg)


def test_it_learns_at_the_heads_rate(tree):
    framework, _ = make(tree, *SMALL, *AUX)
    cfg = tree.cfg(*SMALL, *AUX)
    optimizer = build_optimizer(cfg, framework.student)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in framework.student.aux_head.parameters()} == {0.01}
