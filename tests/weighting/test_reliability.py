import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.structures import IGNORE
from wpl_d2.weighting import reliable_mask


def mask_by_class_maps(label, confidence, boxes, threshold, classes):
    """As published: one painted map per class."""
    result = torch.zeros_like(label, dtype=torch.bool)
    for b, (corners, ids) in enumerate(boxes):
        for c in range(classes):
            painted = torch.zeros_like(label[b], dtype=torch.bool)
            for x0, y0, x1, y1 in corners[ids == c].long().clamp(min=0).tolist():
                painted[y0:y1, x0:x1] = True
            result[b] |= painted & (label[b] == c) & (confidence[b] >= threshold)
    return result


def random_boxes(n, classes):
    start = torch.randint(-5, 30, (n, 2))
    return torch.cat([start, start + torch.randint(0, 25, (n, 2))], dim=1).float(), torch.randint(0, classes, (n,))


@pytest.mark.parametrize("seed", range(6))
def test_reliable_equals_painted_maps(seed):
    torch.manual_seed(seed)
    label = torch.randint(0, 4, (3, 30, 37))
    label[torch.rand(label.shape) < 0.1] = IGNORE
    confidence = torch.rand(label.shape)
    boxes = [random_boxes(n, 4) for n in torch.randint(0, 50, (3,)).tolist()]
    with forbid_host_sync():
        result = reliable_mask(label, confidence, boxes, 0.5)
    assert result.dtype == torch.bool
    assert result.equal(mask_by_class_maps(label, confidence, boxes, 0.5, 4))


def test_edges_are_half_open_and_pixels_are_their_centres():
    label, sure = torch.zeros(1, 4, 6).long(), torch.ones(1, 4, 6)

    def covered(*box):
        mask = reliable_mask(label, sure, [(torch.tensor([box]), torch.tensor([0]))], 0.9)[0]
        rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
        assert mask.sum() == len(rows) * len(columns)
        return rows, columns

    assert covered(1, 0, 3, 2) == ([0, 1], [1, 2])
    assert covered(1.5, 0.5, 3.5, 2.5) == ([0, 1], [1, 2])
    assert covered(1.6, 0.4, 3.6, 2.6) == ([0, 1, 2], [2, 3])
    assert covered(-9, -9, 99, 99) == ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])
    assert covered(2, 2, 2, 4) == ([], [])


def test_threshold_is_reached_by_equality_and_other_classes_do_not_count():
    label = torch.tensor([[[1, 1, 2, IGNORE]]])
    confidence = torch.tensor([[[0.5, 0.4, 0.9, 0.9]]])
    everywhere = torch.tensor([[0.0, 0, 4, 1], [0, 0, 4, 1]])
    boxes = [(everywhere, torch.tensor([1, IGNORE]))]
    assert reliable_mask(label, confidence, boxes, 0.5).tolist() == [[[True, False, False, False]]]


def test_images_without_boxes_have_no_reliable_pixel():
    label, sure = torch.zeros(2, 4, 6).long(), torch.ones(2, 4, 6)
    none = torch.zeros(0, 4), torch.zeros(0).long()
    some = torch.tensor([[0.0, 0, 6, 4]]), torch.tensor([0])
    assert not reliable_mask(label, sure, [none, none], 0.5).any()
    assert reliable_mask(label, sure, [none, some], 0.5).flatten(1).all(dim=1).tolist() == [False, True]


def test_a_missing_image_is_named():
    with pytest.raises(ValueError, match="boxes of 0 images for labels of 2"):
        reliable_mask(torch.zeros(2, 4, 4).long(), torch.ones(2, 4, 4), [], 0.5)
