import pytest
import torch
from helpers import PREVMATCH
from steps import losses_of, make

from wpl_d2.frameworks.loss_terms import consistency_term
from wpl_d2.losses import reduce_term
from wpl_d2.structures import PseudoLabels


def test_the_pool_keeps_the_last_students_of_every_few_steps(tree):
    framework, _ = make(tree, *PREVMATCH, "FRAMEWORK.PREVMATCH.PUSH_STEPS", 2, "SOLVER.MAX_ITER", 12)
    weight = framework.student.sem_seg_head.predictor.bias
    taken = []
    for framework.iteration in range(10):
        taken.append(framework.past_students)
        with torch.no_grad():
            weight.fill_(framework.iteration)
        framework.after_step()
    assert taken == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]
    assert [student.sem_seg_head.predictor.bias[0].item() for student in framework.pool] == [9.0, 7.0]
    assert not any(module.training for module in framework.train().pool.modules())
    assert not any(p.requires_grad for p in framework.pool.parameters())


def test_the_past_counts_most_in_the_middle(tree):
    framework, _ = make(tree, *PREVMATCH, "SOLVER.MAX_ITER", 8)
    factors = []
    for framework.iteration in (0, 2, 4, 6):
        factors.append(framework.past_factor)
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.5])


def test_members_are_different_students_of_the_pool_and_weights_add_up(tree):
    framework, _ = make(tree, *PREVMATCH, "FRAMEWORK.PREVMATCH.POOL_SIZE", 4, "FRAMEWORK.PREVMATCH.MEMBERS", 3)
    torch.manual_seed(0)
    for framework.iteration in (1, 2, 9):
        drawn = [framework.random_members() for _ in range(60)]
        assert {len(members) for members in drawn} == set(range(1, min(3, framework.past_students) + 1))
        assert {place for members in drawn for place in members} == set(range(framework.past_students))
        assert all(sum(members.values()) == pytest.approx(1) for members in drawn)


def test_labels_of_the_past_leave_record_and_bank_to_the_students_own(tree):
    framework, batch = make(tree, *PREVMATCH, "SOLVER.MAX_ITER", 8)
    framework.after_step()
    framework.iteration = 4
    losses = losses_of(framework, batch)
    own = framework.last_step.pseudo_labels
    with torch.no_grad():
        framework.pool[0].sem_seg_head.predictor.bias += torch.tensor([0.0, 9.0, 0.0])
    others = losses_of(framework, batch)
    assert torch.equal(framework.last_step.pseudo_labels.labels, own.labels)
    assert (others["loss_unsup"], others["loss_perturbed"]) > (losses["loss_unsup"], losses["loss_perturbed"])


def test_an_images_losses_are_multiplied_by_its_mean_confidence(tree):
    opts = ["FRAMEWORK.PREVMATCH.BY_IMAGE", True, "FRAMEWORK.PREVMATCH.THRESHOLD", 0.6, "SOLVER.MAX_ITER", 8]
    framework, _ = make(tree, *PREVMATCH, *opts)
    framework.iteration = 4
    torch.manual_seed(0)
    pseudo = PseudoLabels.from_logits(3 * torch.randn(2, 3, 4, 5), torch.rand(2, 4, 5) < 0.7)
    logits = torch.randn(2, 3, 4, 5)
    found = reduce_term(framework.past_term(consistency_term("loss", logits, pseudo, 0.9), pseudo))
    total = 0.0
    for image, labels, confidence, valid in zip(logits, pseudo.labels, pseudo.confidence, pseudo.valid, strict=True):
        trained = valid & (confidence >= 0.6)
        loss = -image.log_softmax(0).gather(0, labels.where(valid, 0)[None])[0]
        total += confidence[valid].mean() * loss[trained].sum()
    torch.testing.assert_close(found, total / pseudo.valid.sum())
