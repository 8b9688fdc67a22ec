import pytest
import torch
from helpers import U2PL, forbid_host_sync

from wpl_d2 import get_cfg
from wpl_d2.frameworks.u2pl.pixel_contrast import Cells, PixelContrast
from wpl_d2.losses import info_nce
from wpl_d2.structures import IGNORE

DIM, SIDE = 6, 4


def contrast(classes=4, as_published=False, keys=40, **changes):
    sizes = {"queue_sizes": [60] * classes, "anchors": 30, "negatives": 7, "keys": keys}
    made = {"num_classes": classes, "dim": DIM, "temperature": 0.5, "min_prob": 0.3, "ranks": (3, 20)}
    return PixelContrast(**(made | sizes | changes), as_published=as_published)


def example(classes=4, images=4, labeled=2, seed=0):
    torch.manual_seed(seed)
    shape = images, SIDE, SIDE
    return Cells(
        student=torch.randn(images, DIM, SIDE, SIDE, requires_grad=True),
        teacher=torch.randn(images, DIM, SIDE, SIDE),
        probability=(2 * torch.randn(images, classes, SIDE, SIDE)).softmax(dim=1),
        label=torch.randint(classes, shape),
        certain=torch.rand(shape) < 0.7,
        uncertain=torch.rand(shape) < 0.7,
        labeled=labeled,
    )


def fill(queues):
    torch.manual_seed(9)
    queues.push(torch.nn.functional.normalize(torch.randn(len(queues.sizes), 20, DIM), dim=-1))


def expected_negatives(cells, kind, low, high):
    """Teacher's rows of the cells that are to join the queue of a class."""
    found = []
    for image in range(len(cells.label)):
        for y in range(SIDE):
            for x in range(SIDE):
                p = cells.probability[image, :, y, x]
                rank = int((p > p[kind]).sum())
                other = cells.label[image, y, x] != kind
                chosen = other and rank < low if image < cells.labeled else low <= rank < high
                if chosen and cells.uncertain[image, y, x]:
                    found.append(cells.teacher[image, :, y, x])
    return found


def held(queues, kind):
    start = int(queues.starts[kind])
    return queues.rows[start : start + int(queues.counts[kind])].float()


@pytest.mark.parametrize(("classes", "low"), [(2, 1), (3, 2), (4, 3), (22, 3)])
def test_negatives_are_confused_labeled_cells_and_unlabeled_ones_of_another_class(classes, low):
    # With three classes or less, no class has rank 3: the published rank would leave nothing.
    module, cells = contrast(classes, keys=64), example(classes)
    module(cells, module.random_samples())
    assert not module.queues.pushed.any()
    module.after_step()
    for kind in range(classes):
        expected = expected_negatives(cells, kind, low, 20)
        assert expected or classes == 22
        found = held(module.queues, kind)
        assert len(found) == min(len(expected), 60)
        if 0 < len(expected) <= 60:
            rows = torch.nn.functional.normalize(torch.stack(expected), dim=-1)
            torch.testing.assert_close(found, rows, rtol=0.0, atol=1e-3)


def test_a_step_of_several_forwards_pushes_the_negatives_of_all():
    module, batches = contrast(), [example(seed=seed) for seed in (0, 1)]
    for cells in batches:
        module(cells, module.random_samples())
    module.after_step()
    for kind in range(4):
        expected = sum(len(expected_negatives(cells, kind, 3, 20)) for cells in batches)
        assert module.queues.pushed[kind] == expected > 0


def test_the_micro_batches_of_a_step_share_its_keys(make_cfg):
    cfg = make_cfg(*U2PL, "SOLVER.GRAD_ACCUMULATION", 3)
    assert PixelContrast(cfg).keys == 14  # of 40


def test_too_many_negatives_are_sampled_evenly_and_without_repetition():
    module, cells = contrast(2, keys=8), example(2)
    counts = torch.zeros(2, 64)
    for _ in range(200):
        module(cells, module.random_samples())
        rows = module._staged[0].float()
        module.after_step()
        every = torch.nn.functional.normalize(cells.teacher.transpose(0, 1).flatten(1).T, dim=-1)
        for kind in (0, 1):
            near = (rows[kind] @ every.T).argmax(dim=1)
            assert len(near.unique()) == 8
            counts[kind, near] += 1
    for kind in (0, 1):
        expected = len(expected_negatives(cells, kind, 1, 20))
        assert (counts[kind] > 0).sum() == expected > 12
        assert counts[kind].max() < 2 * 1600 / expected


def reference(module, cells, samples):
    """The mean loss of the classes that are present, one after the other."""
    losses, present = [], 0
    for kind in range(len(module.queues.sizes)):
        certain = ((cells.label == kind) & cells.certain).nonzero().tolist()
        present += bool(certain)
        anchors = [at for at in certain if cells.probability[at[0], kind, at[1], at[2]] > 0.3]
        if anchors and module.queues.counts[kind]:
            chosen = [anchors[int(share * len(anchors))] for share in samples.anchors[kind].tolist()]
            rows = torch.stack([cells.student[i, :, y, x] for i, y, x in chosen])
            positive = torch.stack([cells.teacher[i, :, y, x] for i, y, x in certain]).mean(dim=0)
            negatives = module.queues.sample(samples.negatives)[kind]
            losses.append(info_nce(rows[None], positive[None], negatives[None], 0.5)[0])
    return sum(losses) / present


@pytest.mark.parametrize("absent", [None, 0, 2])
def test_every_class_of_the_batch_has_its_own_anchors(absent):
    module, cells = contrast(), example()
    fill(module.queues)
    if absent is not None:
        cells.label[cells.label == absent] = IGNORE
    samples = module.random_samples()
    loss = module(cells, samples)
    torch.testing.assert_close(loss, reference(module, cells, samples))
    loss.backward()
    # The gradient reaches anchors of all classes and no other cell.
    own = cells.probability.gather(1, cells.label.clamp(max=3).unsqueeze(1)).squeeze(1)
    anchors = (cells.label != IGNORE) & cells.certain & (own > 0.3)
    reached = cells.student.grad.abs().sum(dim=1) > 0
    assert not (reached & ~anchors).any()
    assert set(cells.label[reached].tolist()) == {0, 1, 2, 3} - {absent}


def test_a_class_without_anchors_or_queue_adds_nothing_but_counts():
    module, cells = contrast(), example()
    fill(module.queues)
    module.queues.pushed[1] = 0
    cells.probability[:, 2] = 0.1
    samples = module.random_samples()
    found = module(cells, samples)
    torch.testing.assert_close(found, reference(module, cells, samples))
    found.backward()
    assert cells.student.grad.isfinite().all()
    assert not cells.student.grad.abs().sum(dim=1)[(cells.label == 1) | (cells.label == 2)].any()


@pytest.mark.parametrize("case", ["one class", "void", "empty queues", "nothing certain"])
def test_where_nothing_can_be_told_apart_the_loss_is_zero(case):
    module, cells = contrast(), example()
    if case != "empty queues":
        fill(module.queues)
    if case == "one class":
        cells.label[:] = 1
    if case == "void":
        cells.label[:] = IGNORE
        cells.certain[:] = cells.uncertain[:] = False
    if case == "nothing certain":
        cells.certain[:] = False
    loss = module(cells, module.random_samples())
    loss.backward()
    assert loss == 0 and not cells.student.grad.any()
    module.after_step()
    assert module.queues.rows.isfinite().all()


def published_kinds(cells):
    """The labels of each cell that the published code sees: (image, y, x) to a set of class ids."""
    kinds = {}
    for first, images in ((0, range(cells.labeled)), (cells.labeled, range(cells.labeled, len(cells.label)))):
        for y in range(SIDE):
            for x in range(SIDE):
                here = {int(cells.label[image, y, x]) for image in images}
                void = cells.label[first, y, x] == IGNORE
                kinds[first, y, x] = set() if void else {0 if kind == IGNORE else kind for kind in here}
    return kinds


@pytest.mark.parametrize(("images", "labeled"), [(2, 1), (4, 2), (5, 2), (5, 4), (8, 4)])
@pytest.mark.parametrize("absent", [None, 1])
def test_as_published_labels_lie_on_the_first_image_and_classes_are_counted_anew(images, labeled, absent):
    module, cells = contrast(as_published=True, keys=64), example(images=images, labeled=labeled)
    if absent is not None:
        cells.label[cells.label == absent] = IGNORE
    kinds = published_kinds(cells)
    certain = [[at for at, own in kinds.items() if kind in own and cells.certain[at]] for kind in range(4)]
    present = [kind for kind in range(4) if certain[kind]]
    assert present == [kind for kind in range(4) if kind != absent]
    fill(module.queues)
    samples = module.random_samples()
    loss = module(cells, samples)
    losses = []
    # The n-th present class takes anchors and positive of class n, but its own negatives.
    for n, kind in enumerate(present):
        anchors = [(i, y, x) for i, y, x in certain[n] if cells.probability[i, n, y, x] > 0.3]
        if anchors:
            rows = torch.stack([cells.student[i, :, y, x] for i, y, x in anchors])
            rows = rows[[int(share * len(rows)) for share in samples.anchors[n].tolist()]]
            positive = torch.stack([cells.teacher[i, :, y, x] for i, y, x in certain[n]]).mean(dim=0)
            losses.append(
                info_nce(rows[None], positive[None], module.queues.sample(samples.negatives)[kind][None], 0.5)
            )
    torch.testing.assert_close(loss, torch.cat(losses).sum() / len(present))
    module.queues.pushed.zero_()
    module.after_step()
    for kind in range(4):
        expected = 0
        for (image, y, x), own in kinds.items():
            p = cells.probability[image, :, y, x]
            ruled_out = image >= labeled and 3 <= int((p > p[kind]).sum()) < 20
            expected += kind in own and bool(cells.uncertain[image, y, x]) and ruled_out
        assert module.queues.pushed[kind] == expected


@pytest.mark.parametrize("as_published", [False, True])
def test_it_never_waits_for_the_device(as_published):
    module, cells = contrast(as_published=as_published), example()
    with forbid_host_sync():
        module(cells, module.random_samples()).backward()
        module.after_step()
        module(cells, module.random_samples()).backward()


def test_the_config_reaches_it():
    cfg = get_cfg()
    cfg.merge_from_list([*U2PL, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3])
    module = PixelContrast(cfg)
    assert module.queues.sizes.tolist() == [150, 100, 100]
    assert module.shape == (3, 16, 5)
