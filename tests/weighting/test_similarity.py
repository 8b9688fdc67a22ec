import pytest
import torch
import torch.nn.functional as F
from helpers import forbid_host_sync

from wpl_d2.structures import IGNORE
from wpl_d2.weighting import cosine, euclidean, rank_overlap, similarity
from wpl_d2.weighting.similarity import (
    cosine_scores,
    margin,
    mean_prototype,
    neighbor_scores,
    rank_scores,
    top_channels,
)

MEASURES = [rank_overlap, cosine, euclidean]


def top_set(vector, k):
    """The definition: by value downwards, then by index, of the positive entries."""
    ranked = sorted((-value, index) for index, value in enumerate(vector.double().tolist()) if value > 0)
    return {index for _, index in ranked[:k]}


def at_pixels(embedding, label):
    """One embedding per pixel, (B, H, W, D), through torch's own upsampling."""
    return F.interpolate(embedding.double(), label.shape[-2:], mode="nearest-exact").movedim(1, -1)


def overlap_by_loops(embedding, label, prototypes, k):
    pixels, result = at_pixels(embedding, label), torch.zeros(label.shape)
    sets = [top_set(prototype, k) for prototype in prototypes]
    for place in torch.cartesian_prod(*(torch.arange(n) for n in label.shape)).tolist():
        b, y, x = place
        if label[b, y, x] != IGNORE:
            shared = top_set(pixels[b, y, x], k) & sets[label[b, y, x]]
            result[b, y, x] = len(shared) / k
    return result


def overlap_by_class_maps(embedding, label, prototypes, k):
    """As published: per class and rank one boolean map; all values positive and distinct."""
    order = at_pixels(embedding, label).argsort(dim=-1, descending=True)[..., :k]
    result = torch.zeros(label.shape)
    for c, prototype in enumerate(prototypes):
        for channel in prototype.argsort(descending=True)[:k]:
            for rank in range(k):
                result += ((label == c) & (order[..., rank] == channel)) / k
    return result


def random_labels(shape, classes):
    label = torch.randint(0, classes + 1, shape)
    return label.masked_fill(label == classes, IGNORE)


KINDS = {
    "signed": lambda *shape: torch.randn(shape),
    "relu": lambda *shape: torch.randn(shape).relu(),
    "ties": lambda *shape: torch.randint(-1, 3, shape).float(),
    "negative": lambda *shape: -torch.rand(shape),
    "sparse": lambda *shape: torch.randint(0, 4, shape).float() * (torch.rand(shape) < 0.1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_rank_overlap_equals_its_definition(kind, seed):
    torch.manual_seed(seed)
    size = [(4, 5), (9, 13), (6, 6), (3, 2)][seed]
    k = [1, 3, 5, 12][seed]  # 12 > 10 channels
    prototypes = KINDS[kind](4, 10)
    prototypes[2] = 0
    embedding, label = KINDS[kind](2, 10, 4, 5), random_labels((2, *size), 4)
    expected = overlap_by_loops(embedding, label, prototypes, k)
    torch.testing.assert_close(rank_overlap(embedding, label, prototypes, k), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 21, 81])
def test_rank_overlap_equals_the_published_loops(classes):
    torch.manual_seed(classes)
    embedding, prototypes = torch.rand(2, 32, 5, 5), torch.rand(classes, 32)
    label = random_labels((2, 17, 19), classes)
    expected = overlap_by_class_maps(embedding, label, prototypes, 5)
    torch.testing.assert_close(rank_overlap(embedding, label, prototypes), expected)
    assert expected.max() > 0


def test_rank_overlap_by_hand():
    prototypes = torch.tensor([[0.0, 3, 1, 3, 3], [5, 0, 0, 0, 0]])  # sets {1, 3} (tie: 4 stays out) and {0}
    pixels = torch.tensor([[9.0, 3, 3, 3, 0], [0, 2, 0, 2, 2], [1, 0, -1, 0, 0], [-1, -2, -3, -4, -5]])
    embedding = pixels.T.reshape(1, 5, 1, 4)
    assert rank_overlap(embedding, torch.zeros(1, 1, 4).long(), prototypes, 2).tolist() == [[[0.5, 1, 0, 0]]]
    assert rank_overlap(embedding, torch.ones(1, 1, 4).long(), prototypes, 2).tolist() == [[[0.5, 0, 0.5, 0]]]
    none = torch.full((1, 1, 4), IGNORE)
    assert not rank_overlap(embedding, none, prototypes, 2).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_compared_by_their_own_values(dtype):
    torch.manual_seed(0)
    embedding, prototypes = torch.randn(1, 16, 6, 6).to(dtype), torch.randn(3, 16)
    label = random_labels((1, 6, 6), 3)
    result = rank_overlap(embedding, label, prototypes)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, overlap_by_loops(embedding, label, prototypes, 5))


def test_memory_format_and_autocast_change_nothing():
    torch.manual_seed(0)
    embedding, prototypes = torch.randn(2, 16, 7, 7), torch.randn(3, 16)
    label = random_labels((2, 13, 13), 3)
    for measure in MEASURES:
        plain = measure(embedding, label, prototypes)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(measure(embedding, label, prototypes), plain, rtol=0, atol=0)
        last = embedding.to(memory_format=torch.channels_last)
        torch.testing.assert_close(measure(last, label, prototypes), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_top_channels_leave_their_input_alone_and_may_be_fewer(dtype):
    vectors = torch.tensor([[2.0, 0, 2, -1], [0, 0, 0, -0.0], [-1, 1, float("inf"), 1]], dtype=dtype)
    before = vectors.clone()
    assert top_channels(vectors, 3).int().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert top_channels(vectors, 1).int().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(vectors, before)


def test_rank_overlap_counts_more_channels_than_bfloat16_has_whole_numbers():
    channels = torch.ones(1, 600, 1, 1)
    prototypes = torch.ones(1, 600)
    prototypes[0, 257] = 0
    assert rank_overlap(channels, torch.zeros(1, 1, 1).long(), prototypes, 600).item() == pytest.approx(599 / 600)


def test_cosine_and_euclidean_equal_their_formulas():
    torch.manual_seed(0)
    embedding, prototypes, label = torch.randn(2, 8, 4, 4), torch.randn(3, 8), random_labels((2, 9, 9), 3)
    prototypes[1] = 0
    pixels = at_pixels(embedding, label).float()
    own = prototypes[label.masked_fill(label == IGNORE, 0)]
    there = label != IGNORE
    expected = F.cosine_similarity(pixels, own, dim=-1).clamp(min=0) * there
    torch.testing.assert_close(cosine(embedding, label, prototypes), expected)
    scale = prototypes[[0, 2]].square().sum(1).mean()
    expected = there / (1 + (pixels - own).square().sum(-1) / scale)
    torch.testing.assert_close(euclidean(embedding, label, prototypes), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_similarities_know_no_scale_and_are_one_at_the_prototype(measure):
    torch.manual_seed(0)
    prototypes = torch.rand(3, 8)
    embedding, label = prototypes.T.reshape(1, 8, 1, 3), torch.tensor([[[0, 1, 2]]])
    torch.testing.assert_close(measure(embedding, label, prototypes), torch.ones(1, 1, 3))
    embedding, label = torch.randn(1, 8, 4, 4), random_labels((1, 4, 4), 3)
    plain, scaled = measure(embedding, label, prototypes), measure(embedding * 50, label, prototypes * 50)
    torch.testing.assert_close(plain, scaled)
    assert plain.min() >= 0 and plain.max() <= 1


@pytest.mark.parametrize("measure", MEASURES)
def test_a_bank_without_any_prototype_gives_zero(measure):
    embedding, label = torch.rand(1, 8, 4, 4), torch.zeros(1, 4, 4).long()
    assert measure(embedding, label, torch.zeros(3, 8)).max() < 1e-6


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("cells, size", [((5, 7), (33, 50)), ((9, 9), (65, 65)), ((8, 8), (5, 21)), ((1, 3), (4, 4))])
@pytest.mark.parametrize("measure", MEASURES)
def test_full_resolution_equals_upsampling_the_whole(measure, cells, size, align_corners):
    torch.manual_seed(0)
    embedding, prototypes = torch.randn(2, 12, *cells), torch.randn(4, 12)
    label = random_labels((2, *size), 4)
    whole = F.interpolate(embedding, size, mode="bilinear", align_corners=align_corners)
    expected = measure(whole, label, prototypes)
    result = measure(embedding, label, prototypes, resolution="full", align_corners=align_corners)
    torch.testing.assert_close(result, expected)


def test_full_resolution_does_not_depend_on_the_chunks(monkeypatch):
    torch.manual_seed(0)
    embedding, prototypes, label = torch.randn(1, 12, 9, 9), torch.randn(4, 12), random_labels((1, 50, 33), 4)
    default = cosine(embedding, label, prototypes, resolution="full")
    for rows in (1, 7, 1000):
        monkeypatch.setattr(similarity, "_ROWS", rows)
        result = cosine(embedding, label, prototypes, resolution="full")
        torch.testing.assert_close(result, default, rtol=0, atol=1e-6)


def test_mean_prototype_leaves_out_empty_classes():
    torch.manual_seed(0)
    prototypes, seen = torch.randn(4, 6), torch.tensor([True, False, True, True])
    torch.testing.assert_close(mean_prototype(prototypes, seen), prototypes[seen].mean(dim=0))
    assert not mean_prototype(prototypes, torch.zeros(4, dtype=torch.bool)).any()


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("scores", [lambda p: rank_scores(p, 3), cosine_scores])
def test_margin_is_own_minus_the_best_other(classes, scores):
    torch.manual_seed(classes)
    prototypes, embedding = torch.randn(classes, 10), torch.randn(2, 10, 4, 5)
    plain, ahead = scores(prototypes)(embedding), margin(scores(prototypes))(embedding)
    for c in range(classes):
        others = plain[..., [other for other in range(classes) if other != c]]
        best = others.amax(dim=-1) if classes > 1 else torch.zeros(plain.shape[:-1])
        torch.testing.assert_close(ahead[..., c], (1 + plain[..., c] - best) / 2)
    assert ahead.min() >= 0 and ahead.max() <= 1


@pytest.mark.parametrize("products", [1, 50, 1 << 24])
def test_neighbor_scores_equal_a_loop(products, monkeypatch):
    monkeypatch.setattr(similarity, "_PRODUCTS", products)
    torch.manual_seed(0)
    bank, filled = torch.randn(4, 12, 6), torch.zeros(4, 12, dtype=torch.bool)
    for c, count in enumerate([12, 9, 3, 0]):
        filled[c, torch.randperm(12)[:count]] = True
    embedding = torch.randn(2, 6, 3, 4)
    found = neighbor_scores(bank, filled)(embedding)
    assert found.shape == (2, 3, 4, 4)
    for b, y, x, c in torch.cartesian_prod(*(torch.arange(n) for n in found.shape)).tolist():
        own = [F.cosine_similarity(embedding[b, :, y, x], row, dim=0).item() for row in bank[c][filled[c]]]
        best = sorted((max(value, 0.0) for value in own), reverse=True)[:8]
        assert found[b, y, x, c].item() == pytest.approx(sum(best) / len(best) if best else 0.0, abs=1e-6)


@pytest.mark.parametrize("resolution", ["stride4", "full"])
@pytest.mark.parametrize("measure", MEASURES)
def test_no_host_sync_and_no_gradient(measure, resolution):
    embedding, prototypes = torch.randn(1, 8, 4, 4, requires_grad=True), torch.randn(3, 8)
    label = random_labels((1, 9, 9), 3)
    with forbid_host_sync():
        result = measure(embedding, label, prototypes, resolution=resolution)
    assert not result.requires_grad


def test_bad_input_is_named():
    embedding, label, prototypes = torch.randn(1, 8, 4, 4), torch.zeros(1, 9, 9).long(), torch.randn(3, 8)
    with pytest.raises(ValueError, match=r"WEIGHTING\.TOPK_RES.*full"):
        cosine(embedding, label, prototypes, resolution="ful")
    with pytest.raises(ValueError, match=r"WEIGHTING\.K"):
        rank_overlap(embedding, label, prototypes, k=0)
    with pytest.raises(ValueError, match=r"\(C, 8\)"):
        rank_overlap(embedding, label, prototypes[:, :7])
    with pytest.raises(ValueError, match=r"\(B, H, W\)"):
        rank_overlap(embedding, label[0], prototypes)
