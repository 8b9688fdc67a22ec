"""CSL's and CoVar's weights equal what their docstrings say, computed by loops and NumPy's SVD."""

import numpy as np
import pytest
import torch
from test_scores import CLASSES, SIZE, make_evidence, score_of

from wpl_d2.structures import PseudoLabels
from wpl_d2.weighting import Evidence


def plane(probabilities, kind):
    """The two figures of each pixel of one image, by a loop over (N, C) probabilities."""
    figures = []
    for p in probabilities:
        own, others = p.max(), np.delete(p, p.argmax())
        variance = np.mean((others - others.mean()) ** 2)
        figures.append((own, variance if kind == "csl" else variance / (2 * others.mean() ** 2)))
    return np.array(figures)


def clusters(figures, kind):
    """The number of each pixel's cluster."""
    if kind == "csl":
        _, _, rows = np.linalg.svd(figures.T, full_matrices=False)
        return np.abs(rows).argmax(axis=0)
    standard = (figures - figures.mean(axis=0)) / figures.std(axis=0, ddof=1)
    axis = np.linalg.svd(standard.T, full_matrices=False)[0][:, 0]
    return (standard @ axis > 0).astype(int)


@pytest.mark.parametrize("kind", ["csl", "covar"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_label_is_weighed_by_how_far_it_falls_short_of_the_reliable_cluster(kind, seed):
    evidence = make_evidence(seed)
    found, _ = score_of(kind, evidence)
    valid = evidence.pseudo.valid
    probabilities = evidence.logits.double().softmax(dim=1).permute(0, 2, 3, 1)
    for image in range(2):
        figures = plane(probabilities[image][valid[image]].numpy(), kind)
        number = clusters(figures, kind)
        reliable = figures[number == max((0, 1), key=lambda n: figures[number == n, 0].mean())]
        mean, deviation = reliable.mean(axis=0), reliable.std(axis=0, ddof=1)
        expected = []
        for confidence, variance in figures:
            z = (confidence - mean[0]) / deviation[0], (mean[1] - variance) / deviation[1]
            if kind == "csl":
                expected.append(1.0 if max(z) > 0 else np.exp(-(z[0] ** 2 + z[1] ** 2) / 8))
            else:
                expected.append(np.exp(-(min(z[0], 0) ** 2 + min(z[1], 0) ** 2) / 2))
        assert found[image][valid[image]].numpy() == pytest.approx(expected, abs=2e-3)
        assert len(reliable) < len(figures) and min(expected) < 0.5 < max(expected)


@pytest.mark.parametrize("kind", ["csl", "covar"])
@pytest.mark.parametrize("logits", [torch.zeros(1, CLASSES, *SIZE), torch.eye(CLASSES)[0].view(1, -1, 1, 1) * 200])
def test_labels_that_are_all_alike_have_one_finite_weight(kind, logits):
    logits = logits.expand(1, CLASSES, *SIZE)
    evidence = Evidence(PseudoLabels.from_logits(logits), logits, torch.zeros(1, 10, 5, 6))
    found, _ = score_of(kind, evidence)
    assert found.isfinite().all() and found.max() - found.min() < 1e-3 and found.max() <= 1


def test_an_image_without_a_valid_pixel_changes_nothing_of_the_others():
    evidence = make_evidence()
    empty = evidence.pseudo.valid.clone()
    empty[0] = False
    for kind in ("csl", "covar"):
        whole, _ = score_of(kind, evidence)
        found, _ = score_of(
            kind, Evidence(PseudoLabels.from_logits(evidence.logits, empty), evidence.logits, evidence.embedding)
        )
        assert found.isfinite().all() and found[1].equal(whole[1])
