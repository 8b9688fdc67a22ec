from dataclasses import fields

import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.augseg import beta_boxes, inject_and_mix, known_labels, sample_injection
from wpl_d2.structures import IGNORE, PseudoLabels

SIZE = (12, 16)


def edges(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize(("beta", "mean"), [((8.0, 2.0), 0.8), ((4.0, 4.0), 0.5)])
def test_boxes_have_the_published_sizes_and_places(beta, mean):
    torch.manual_seed(0)
    areas, centers = [], []
    for _ in range(300):
        masks = beta_boxes(3, (80, 120), beta)
        assert masks.shape == (3, 80, 120) and masks.dtype == torch.bool
        inside = [box for box in map(edges, masks) if box[0] > 0 and box[1] < 80 and box[2] > 0 and box[3] < 120]
        assert len({(box[1] - box[0], box[3] - box[2]) for box in inside}) <= 1  # one size a batch
        for mask, (top, bottom, left, right) in zip(masks, map(edges, masks), strict=True):
            assert mask.sum() == (bottom - top) * (right - left)
        for top, bottom, left, right in inside:
            assert abs((bottom - top) / 80 - (right - left) / 120) < 0.05
            centers.append(((top + bottom) / 160, (left + right) / 240))
        small = [side for side in ((box[1] - box[0]) / 80 for box in inside) if side]
        areas += [1 - side**2 for side in small[:1]]
    # Boxes that leave the image are not among these, and they are the large ones.
    assert mean - 0.03 < sum(areas) / len(areas) < mean + 0.2
    assert min(y for y, _ in centers) >= 0.125 and min(x for _, x in centers) >= 0.125


def test_the_side_is_the_root_of_the_area_that_beta_leaves(monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
    torch.manual_seed(0)
    found = {
        (bottom - top, right - left) for top, bottom, left, right in map(edges, beta_boxes(200, (80, 120), (4, 4)))
    }
    assert max(found) == (40, 60) and len(found) > 1


def test_centres_reach_the_far_end_but_not_the_first_eighth():
    torch.manual_seed(0)
    # So beta is almost 1, and the boxes are a few pixels.
    covered = torch.stack([beta_boxes(100, (160, 160), (400.0, 1.0)).any(0) for _ in range(60)]).any(0)
    rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()
    assert 10 <= min(rows.min(), columns.min()) <= 20
    assert min(rows.max(), columns.max()) == 159


def test_samples_are_counted_and_wait_for_nothing():
    with forbid_host_sync():
        torch.manual_seed(1)
        first = sample_injection(6, SIZE)
        torch.manual_seed(1)
        again = sample_injection(6, SIZE)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert sorted(first.partner.tolist()) == list(range(6)) and first.partner.tolist() != list(range(6))
    assert ((first.chance >= 0) & (first.chance < 1)).all() and first.chance.unique().numel() == 6
    torch.manual_seed(0)
    patches, boxes = zip(
        *((drawn.patches, drawn.boxes) for drawn in (sample_injection(4, SIZE) for _ in range(200))), strict=True
    )
    assert torch.stack(patches).float().mean() < 0.8 * torch.stack(boxes).float().mean()


def random_labels(batch):
    shape = (batch, *SIZE)
    return PseudoLabels(
        labels=torch.randint(0, 9, shape),
        confidence=torch.rand(shape),
        valid=torch.rand(shape) < 0.5,
        reliable=torch.rand(shape) < 0.5,
        weight=torch.rand(shape),
    )


@pytest.mark.parametrize("lenders", [1, 2, 5])
def test_every_field_moves_with_the_pixels_in_both_steps(lenders):
    torch.manual_seed(0)
    images, labeled = torch.rand(4, 3, *SIZE), torch.rand(lenders, 3, *SIZE)
    pseudo, known = random_labels(4), random_labels(lenders)
    samples = sample_injection(4, SIZE)._replace(chance=torch.tensor([0.0, 0.3, 0.6, 0.9]))
    score = torch.tensor([0.5, 0.5, 0.5, 0.5])
    mixed, moved = inject_and_mix(images, pseudo, score, labeled, known, samples)
    planes = [(images, labeled, mixed)]
    for field in fields(PseudoLabels):
        ours, theirs, found = (getattr(part, field.name)[:, None] for part in (pseudo, known, moved))
        planes.append((ours, theirs, found))
    for ours, theirs, found in planes:
        candidates = []
        for i in range(4):
            patch = samples.patches[i] if i >= 2 else torch.zeros(SIZE, dtype=torch.bool)
            candidates.append(torch.where(patch, theirs[int(samples.partner[i]) % lenders], ours[i]))
        for i in range(4):
            expected = torch.where(samples.boxes[i], candidates[int(samples.partner[i])], ours[i])
            assert torch.equal(found[i], expected)
    assert samples.patches.flatten(1).any(1).all() and samples.boxes.flatten(1).any(1).all()


@pytest.mark.parametrize(("score", "injected"), [(0.0, True), (1.0, False)])
def test_the_surer_the_teacher_the_fewer_patches(score, injected):
    torch.manual_seed(0)
    images, labeled = torch.zeros(8, 3, *SIZE), torch.ones(8, 3, *SIZE)
    pseudo, known = random_labels(8), random_labels(8)
    everywhere = torch.ones(8, *SIZE, dtype=torch.bool)
    samples = sample_injection(8, SIZE)._replace(patches=everywhere, boxes=everywhere)
    mixed, _ = inject_and_mix(images, pseudo, torch.full((8,), score), labeled, known, samples)
    assert (mixed == float(injected)).all()


def test_ground_truth_is_certain_valid_where_it_is_known_and_never_reliable():
    target = torch.tensor([[[0, 2, IGNORE]]])
    known = known_labels(target, 2.0)
    assert torch.equal(known.labels, target)
    assert known.confidence.tolist() == [[[1.0, 1.0, 1.0]]]
    assert known.valid.tolist() == [[[True, True, False]]]
    assert not known.reliable.any()
    assert known.weight.tolist() == [[[2.0, 2.0, 2.0]]]
