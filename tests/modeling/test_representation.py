import pytest
import torch

from wpl_d2 import build_model
from wpl_d2.modeling.heads.sem_seg_head import representation_head


@pytest.mark.parametrize("separable", [False, True])
def test_it_reads_what_the_fuse_convolutions_read_and_changes_nothing_else(make_cfg, separable):
    opts = ["MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", separable, "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [24]]
    plain, forked = (build_model(make_cfg(*opts, "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", dim)) for dim in (0, 16))
    weights = {key.replace("fuse_conv.fuse", "fuse_conv"): value for key, value in forked.state_dict().items()}
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    features = forked.encode(torch.randn(2, 3, 65, 33))
    fork = forked.sem_seg_head.decoder["res2"]["fuse_conv"]
    seen = []
    fork.fuse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output, without = forked.decode(features, (65, 33)), plain.decode(features, (65, 33))
    assert torch.equal(output.logits, without.logits) and torch.equal(output.embedding, without.embedding)
    assert output.representation.shape == (2, 16, 17, 9) and without.representation is None
    assert seen[0].shape[1] == 24 + 256
    torch.testing.assert_close(output.representation, fork.representation(seen[0]))
    # A representation without a sign would never be opposite to another one.
    assert (output.representation < 0).any()


def test_it_is_not_computed_in_evaluation(make_cfg, monkeypatch):
    model = build_model(make_cfg("MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 16)).eval()
    head = model.sem_seg_head.decoder["res2"]["fuse_conv"].representation
    monkeypatch.setattr(head, "forward", lambda features: pytest.fail("computed"))
    assert model([{"image": torch.zeros(3, 33, 33)}])[0]["sem_seg"].shape == (5, 33, 33)


def test_channels_are_dropped_in_training_behind_each_convolution():
    head = representation_head(8, 8, 4, norm="BN", dropout=0.5)
    names = [type(layer).__name__ for layer in head]
    assert names == ["Conv2d", "Dropout2d", "Conv2d", "Dropout2d", "Conv2d"]
    assert [layer.kernel_size for layer in head if hasattr(layer, "kernel_size")] == [(3, 3), (3, 3), (1, 1)]
    image = torch.rand(1, 8, 5, 5)
    assert not torch.equal(head(image), head(image))
    assert torch.equal(head.eval()(image), head(image))
