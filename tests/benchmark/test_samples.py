import pytest
import torch

from wpl_d2.benchmark.data import PublishedSamples, compare_samples
from wpl_d2.data.loader import labeled_records


def test_samples_are_timed_beside_the_published_ones(tree):
    cfg = tree.cfg("INPUT.STRONG.VIEWS", 2)
    threads = torch.get_num_threads()
    found = compare_samples(cfg, 3)
    assert torch.get_num_threads() == threads
    for kind in ("labeled", "unlabeled"):
        assert 0 < found[f"{kind}_sample_s"] < 1 and found[f"published_{kind}_sample_s"] > 0
        assert found[f"{kind}_samples_per_core_s"] == pytest.approx(1 / found[f"{kind}_sample_s"])


def test_the_baseline_makes_what_it_stands_for(tree):
    cfg = tree.cfg(
        "INPUT.STRONG.VIEWS",
        2,
        "INPUT.SCALE_RANGE",
        (1.0, 1.0),
        "INPUT.CROP_SIZE",
        (30, 30),
        "INPUT.STRONG.JITTER_PROB",
        1.0,
    )
    record = labeled_records(cfg)[0]
    samples = PublishedSamples(cfg)
    image, labels = samples.labeled(record)
    assert image.shape == (3, 30, 30) and labels.shape == (30, 30)
    views, padding = samples.unlabeled(record)
    assert [view.shape for view in views] == [(3, 30, 30)] * 3 and not padding.any()
    weak, *strong = views
    assert not any(torch.equal(weak, view) for view in strong)
