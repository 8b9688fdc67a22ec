import math

import torch

from wpl_d2.losses import info_nce


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def example(dtype=torch.float32):
    torch.manual_seed(0)
    negatives = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=-1)
    return 3 * torch.randn(2, 3, 5), torch.randn(2, 5), negatives.to(dtype)


def test_it_is_the_mean_cross_entropy_of_the_positive():
    anchors, positives, negatives = example()
    found = info_nce(anchors, positives, negatives, temperature=0.5)
    for kind in range(2):
        losses = []
        for number, anchor in enumerate(anchors[kind].tolist()):
            near = math.exp(cosine(anchor, positives[kind].tolist()) / 0.5)
            far = sum(math.exp(cosine(anchor, other) / 0.5) for other in negatives[kind, number].tolist())
            losses.append(-math.log(near / (near + far)))
        assert math.isclose(found[kind].item(), sum(losses) / 3, rel_tol=1e-5)


def test_anchors_alone_get_a_gradient():
    anchors, positives, negatives = example()
    for tensor in (anchors, positives, negatives):
        tensor.requires_grad_()
    info_nce(anchors, positives, negatives, temperature=0.5).sum().backward()
    assert positives.grad is None and negatives.grad is None
    assert anchors.grad.isfinite().all() and (anchors.grad.abs().sum(dim=-1) > 0).all()


def test_mixed_precision_and_float16_negatives_change_little():
    expected = info_nce(*example(), temperature=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(*example(torch.float16), temperature=0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.0)
