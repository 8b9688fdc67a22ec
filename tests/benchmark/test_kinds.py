from helpers import SMALL

from wpl_d2.benchmark.kinds import compare_kinds
from wpl_d2.data import build_train_loader
from wpl_d2.weighting import SCORE_REGISTRY


def test_each_kind_is_timed_beside_the_plain_step(tree):
    cfg = tree.cfg(*SMALL, "WEIGHTING.ENABLED", False)
    found = compare_kinds(cfg, next(build_train_loader(cfg)), 2)
    assert found.keys() == {"plain_step_s"} | {f"{score.kind}_share" for _, score in SCORE_REGISTRY}
    assert all(value > 0 for value in found.values())
    # Three forwards and none; a fit in a hundred steps beside what it learns from.
    assert found["tta_share"] > found["confidence_share"]
    assert found["calibrated_share"] > found["confidence_share"]
