"""Prototypes; their values in a training are held by tests/golden/test_pcr_golden.py."""

import pytest
import torch
import torch.nn.functional as F
from helpers import PCR, forbid_host_sync
from steps import losses_of, make

from wpl_d2.frameworks.pcr.prototypes import PrototypeClassifier
from wpl_d2.structures import IGNORE


def classifier(dim=2, bank_size=32, prototypes=2, grid=2):
    options = {"temperature": 0.5, "align_corners": False}
    return PrototypeClassifier(num_classes=3, dim=dim, prototypes=prototypes, bank_size=bank_size, grid=grid, **options)


def on_circle(*degrees):
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def test_the_nearest_prototype_of_a_class_counts():
    found = classifier()
    found.vectors[0] = 3 * on_circle(0.0, 90.0)
    found.vectors[1] = on_circle(180.0, 270.0)
    features = on_circle(30.0, 90.0, 200.0).T.reshape(1, 2, 1, 3).requires_grad_()
    logits = found(features, (1, 3))
    expected = torch.tensor([[30.0, 0, 110], [120.0, 90, 20]]).deg2rad().cos() / 0.5
    torch.testing.assert_close(logits[0, :2, 0], expected)
    assert not logits[0, 2].any()  # of this class nothing is known
    logits.sum().backward()
    assert features.grad.any() and not found.vectors.requires_grad
    assert found(features, (4, 6)).shape == (1, 3, 4, 6)


def test_clusters_are_found_in_any_order():
    features, labels = on_circle(1.0, 3, 2, 80, 82, 200, 202, 300), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    orders = [torch.arange(8), torch.arange(8).flip(0), torch.tensor([4, 7, 0, 3, 6, 1, 5, 2])]
    for order in orders:
        found = classifier()
        found.bank.push(features[order], labels[order])
        found.cluster()
        means = [on_circle(*degrees).squeeze(0) for degrees in ((2.0,), (81.0,), (201.0,), (300.0,))]
        near = (found.vectors[:2].flatten(0, 1) @ torch.stack(means).T).amax(dim=0)
        torch.testing.assert_close(near, torch.ones(4), atol=1e-4, rtol=0)
        assert not found.vectors[2].any()


def test_a_class_of_one_feature_has_it_for_all_prototypes():
    found = classifier()
    found.bank.push(on_circle(40.0), torch.tensor([2]))
    found.cluster()
    torch.testing.assert_close(found.vectors[2], on_circle(40.0, 40.0))


def test_prototypes_follow_the_features_of_their_class():
    found = classifier(grid=2)
    found.vectors[0], found.vectors[1] = on_circle(0.0, 90.0), on_circle(180.0, 270.0)
    start = found.vectors.clone()
    features = 7 * on_circle(10.0, 30.0, 85.0, 190.0).T.reshape(1, 2, 2, 2)
    found.stage(features, torch.tensor([[[0, 0], [IGNORE, 0]]]), torch.full((1, 2, 2, 2), 0.5))
    found.follow(0.75)
    mean = (on_circle(10.0) + on_circle(30.0)) / 2
    # 190 degrees are of class 0 too, and nearer to 90 than to 0.
    torch.testing.assert_close(found.vectors[0], 0.75 * start[0] + 0.25 * torch.cat([mean, on_circle(190.0)]))
    assert torch.equal(found.vectors[1:], start[1:])


def test_one_feature_of_each_cell_is_drawn():
    found = classifier(dim=1, grid=3)
    place = torch.arange(6 * 9.0).view(1, 1, 6, 9)
    seen = set()
    for _ in range(200):
        found._staged = []
        labels = torch.zeros(1, 6, 9, dtype=torch.int64)
        labels.view(-1)[:] = torch.arange(54)  # the label tells the place
        found.stage(place, labels, torch.rand(1, 2, 3, 3))
        drawn = found._staged[0][1].view(3, 3)
        assert torch.equal(drawn // 9 // 2, torch.arange(3)[:, None].expand(3, 3))
        assert torch.equal(drawn % 9 // 3, torch.arange(3).expand(3, 3))
        seen |= set(drawn.flatten().tolist())
    assert len(seen) == 54


def test_moving_and_clustering_wait_for_no_device():
    with torch.device("meta"):
        found, features = classifier(dim=4), torch.rand(2, 4, 5, 6)
        labels, samples = torch.zeros(2, 10, 12, dtype=torch.int64), torch.rand(2, 2, 2, 2)
    with forbid_host_sync(on_meta=True):
        found.stage_for_bank(features, labels)
        found.store()
        found.cluster()
        found.stage(features, labels, samples)
        found.follow(0.9)


def test_prototypes_are_clustered_at_the_end_of_the_burn_in_and_train_from_then_on(tree):
    framework, batch = make(tree, *PCR, "FRAMEWORK.BURN_IN", 2)
    keys = []
    for framework.iteration in range(4):
        keys.append(set(losses_of(framework, batch)))
        known, counts = framework.prototypes.vectors.clone(), framework.prototypes.bank.counts.clone()
        framework.after_step()
        moved = not torch.equal(framework.prototypes.vectors, known)
        stored = not torch.equal(framework.prototypes.bank.counts, counts)
        assert (moved, stored) == [(False, True), (True, True), (True, False), (True, False)][framework.iteration]
    assert keys[:2] == 2 * [{"loss_sem_seg"}]
    assert keys[2:] == 2 * [{"loss_sem_seg", "loss_prototypes", "loss_unsup"}]
    lengths = F.normalize(framework.prototypes.vectors, dim=-1).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(3, 4))


def test_padding_and_doubt_move_no_prototype(tree):
    framework, batch = make(tree, *PCR, "WEIGHTING.ENABLED", False)
    losses_of(framework, batch)
    framework.after_step()
    framework.iteration, framework.threshold = 1, 1.5
    losses_of(framework, batch)
    (_, labeled), (_, mixed) = framework.prototypes._staged
    assert (labeled != IGNORE).any() and (mixed == IGNORE).all()


@pytest.mark.parametrize("part", ["prototypes.vectors", "prototypes.bank.ring", "prototypes.bank.pushed"])
def test_they_are_in_the_state(tree, part):
    framework, _ = make(tree, *PCR)
    assert part in framework.state_dict()
    assert not any(name.startswith("prototypes.") for name, _ in framework.named_parameters())
