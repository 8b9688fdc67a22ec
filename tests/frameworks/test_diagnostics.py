"""What switches a method off is said: by the config at once, and by the training at its end."""

import pytest
import torch
from helpers import AEL, AUGSEG, RESNET18, SMALL, SMALL_DETECTOR, SMALL_FPN, U2PL, UNIMATCH, build_on_meta
from steps import fill_bank, fill_bank_for_one_class, losses_of, make

from wpl_d2 import build_framework
from wpl_d2.frameworks import ineffective_keys, ineffective_parts
from wpl_d2.structures import IGNORE

FRAMEWORKS = {"AEL": AEL, "AugSeg": AUGSEG, "MeanTeacher": [], "U2PL": U2PL, "UniMatch": UNIMATCH}
SUPERVISED = ["FRAMEWORK.NAME", "Supervised", "WEIGHTING.ENABLED", False, "DATASETS.UNLABELED", ()]
ALONE = ["SOLVER.UNLABELED_IMS_PER_BATCH", 1]
COPIES = ["SOLVER.MAX_ITER", 30, "FRAMEWORK.BURN_IN", 10, "FRAMEWORK.EMA_COPY_STEPS"]
OHEM = ["FRAMEWORK.OHEM.ENABLED", True, "FRAMEWORK.OHEM.MIN_KEPT"]
CACHED = ["MODEL.DETECTOR.MODE", "cached"]

BY_CONFIG = [
    (
        ["FRAMEWORK.BURN_IN", 30, "SOLVER.MAX_ITER", 30],
        ["FRAMEWORK.BURN_IN: 30 of SOLVER.MAX_ITER 30 steps are superv"],
    ),
    (["FRAMEWORK.BURN_IN", 99, "SOLVER.MAX_ITER", 30, *U2PL], ["FRAMEWORK.BURN_IN: 99 of SOLVER.MAX_ITER 30 steps"]),
    (["FRAMEWORK.BURN_IN", 29, "SOLVER.MAX_ITER", 30], []),
    (["DATASETS.PSEUDO_LABELS", ("a",)], ["DATASETS.PSEUDO_LABELS: MeanTeacher makes its own pseudo-labels"]),
    (["FRAMEWORK.ALPHA", 0.0], ["FRAMEWORK.ALPHA: 0, so that pseudo-labels train nothing"]),
    ([*COPIES, 20], ["FRAMEWORK.EMA_COPY_STEPS: with BURN_IN 30 of SOLVER.MAX_ITER 30 steps"]),
    ([*COPIES, 19], []),
    ([*COPIES, 20, *UNIMATCH], []),
    ([*COPIES, 20, "FRAMEWORK.EMA_DECAY", 0.0], []),
    (ALONE, ["SOLVER.UNLABELED_IMS_PER_BATCH: one image a process at a time, which CutMix can mix with no other"]),
    ([*ALONE, *UNIMATCH], ["SOLVER.UNLABELED_IMS_PER_BATCH: one image"]),
    ([*ALONE, *U2PL], ["SOLVER.UNLABELED_IMS_PER_BATCH: one image"]),
    ([*ALONE, "FRAMEWORK.CUTMIX.PROB", 0.0], []),
    ([*ALONE, *AEL], []),
    ([*ALONE, *AUGSEG], []),
    ([*OHEM, 2 * 48 * 64], ["FRAMEWORK.OHEM.MIN_KEPT: 6144, but a process's labeled images have 6144 pixels"]),
    ([*OHEM, 2 * 48 * 64 - 1], []),
    ([*OHEM, 2 * 48 * 64, *SUPERVISED], ["FRAMEWORK.OHEM.MIN_KEPT: 6144"]),
    ([*CACHED], ["MODEL.DETECTOR.MODE: cached, but nothing asks for boxes"]),
    ([*CACHED, "RPPI.ENABLED", True], []),
    (SUPERVISED, []),
    ([*SUPERVISED, "FRAMEWORK.BURN_IN", 99, "SOLVER.MAX_ITER", 30, "FRAMEWORK.ALPHA", 0.0], []),
    (SUPERVISED[:4], ["DATASETS.UNLABELED: Supervised learns from labels alone"]),
    ([*SUPERVISED, "WEIGHTING.ENABLED", True], ["WEIGHTING.ENABLED: Supervised learns from labels alone"]),
    (SMALL_FPN, ["DATASETS.UNLABELED: Detector learns from labels alone"]),
    ([*SMALL_FPN, "DATASETS.UNLABELED", ()], []),
    *((opts, []) for opts in FRAMEWORKS.values()),
]


@pytest.mark.parametrize(("opts", "texts"), BY_CONFIG)
def test_what_a_config_switches_off_is_known_at_the_start(tree, opts, texts):
    cfg = tree.cfg(*SMALL, *opts)
    found = ineffective_keys(cfg, build_on_meta(cfg))
    assert len(found) == len(texts)
    for text, begin in zip(found, texts, strict=True):
        assert text.startswith(begin)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["WEIGHTING.K", 256],
            r"WEIGHTING\.K: 256, but an embedding has 256 channels, .*; set it below MODEL\.SEM_SEG",
        ),
        (["WEIGHTING.K", 300], r"WEIGHTING\.K: 300, but"),
        (["WEIGHTING.LABELED_CONF", 1.0], r"WEIGHTING\.LABELED_CONF: no confidence is above 1, .* stays empty; lower"),
        (
            ["WEIGHTING.MIN_COUNT", 40, "WEIGHTING.BANK_SIZE", 32],
            r"MIN_COUNT: without RPPI .* 40 .*; set it to at most 32",
        ),
    ],
)
def test_weights_that_could_never_weigh_are_refused(tree, opts, message):
    with pytest.raises(ValueError, match=message):
        build_framework(tree.cfg(*SMALL, *opts))


@pytest.mark.parametrize(
    "opts",
    [
        ["WEIGHTING.K", 255],
        ["WEIGHTING.K", 256, "WEIGHTING.KIND", ("cosine",)],
        [*CACHED, "RPPI.ENABLED", True, "WEIGHTING.LABELED_CONF", 1.0],
        [*CACHED, "RPPI.ENABLED", True, "WEIGHTING.MIN_COUNT", 40, "WEIGHTING.BANK_SIZE", 32],
        ["WEIGHTING.MIN_COUNT", 32, "WEIGHTING.BANK_SIZE", 32],
        ["WEIGHTING.ENABLED", False, "WEIGHTING.K", 300, "WEIGHTING.LABELED_CONF", 1.0],
    ],
)
def test_weights_that_can_weigh_are_not(tree, opts):
    build_on_meta(tree.cfg(*SMALL, *opts))


def sums_of(framework, batch, steps=2):
    """What a training of some steps adds up, on one process."""
    sums = {}
    for framework.iteration in range(steps):
        losses_of(framework, batch)
        framework.after_step()
        for name, value in framework.last_step.scalars.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums


def texts_of(tree, *opts, steps=2):
    framework, batch = make(tree, *opts)
    return ineffective_parts(framework, sums_of(framework, batch, steps))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_threshold_that_nothing_reaches_is_told(tree, name):
    texts = texts_of(tree, *FRAMEWORKS[name], "FRAMEWORK.THRESHOLD", 1.0, "WEIGHTING.MIN_COUNT", 1)
    expected = "no pseudo-label ever reached FRAMEWORK.THRESHOLD 1: the unlabeled images taught nothing"
    # U2PL has no threshold, and AugSeg's patches of labeled images are no pseudo-labels.
    assert [text for text in texts if "no pseudo-label" in text] == ([] if name == "U2PL" else [expected])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_nothing_is_told_of_what_works(tree, name):
    opts = [*FRAMEWORKS[name], "WEIGHTING.MIN_COUNT", 1, "FRAMEWORK.AEL.PRESENCE_AREA", 0.01]
    framework, batch = make(tree, *opts)
    fill_bank(framework, batch)
    sums = sums_of(framework, batch)
    assert ineffective_parts(framework, sums) == []
    assert 0 < sums["pseudo/selected"] <= 2 and 0 < sums["pseudo/weighted"] <= 2 and sums["pseudo/reliable"] == 0


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_scalars_are_the_shares_of_valid_pixels(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name], *RESNET18, "FRAMEWORK.THRESHOLD", 0.4)
    for item in batch["unlabeled"]:
        item["valid"][:, 40:] = False
    present = fill_bank_for_one_class(framework, batch)
    torch.manual_seed(5)
    terms = {term.name: term for term in framework.terms(batch)[0]}
    pseudo, scalars = framework.last_step.pseudo_labels, framework.last_step.scalars
    valid = pseudo.valid.sum()
    confident = ((pseudo.confidence >= 0.4) & pseudo.valid).sum() / valid
    kept = terms["loss_unsup"].norm.sum() / (terms["loss_unsup"].target != IGNORE).sum()
    torch.testing.assert_close(scalars["pseudo/selected"], kept if name == "U2PL" else confident)
    weighted = (pseudo.weight[pseudo.valid] != 1).sum() / valid
    torch.testing.assert_close(scalars["pseudo/weighted"], weighted)
    assert 0 < weighted <= (pseudo.labels == present).sum() / valid < 1


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_burn_in_to_the_end_is_told(tree, name):
    (text,) = texts_of(tree, *FRAMEWORKS[name], "FRAMEWORK.BURN_IN", 2)
    assert text == "FRAMEWORK.BURN_IN: 2, and no step came to the unlabeled images: they taught nothing"


def test_a_bank_that_stays_empty_and_weights_that_stay_neutral_are_told(tree):
    empty, neutral = texts_of(tree, "WEIGHTING.LABELED_CONF", 0.9999)
    assert empty.startswith(
        "WEIGHTING.LABELED_CONF: no labeled pixel was rightly labeled with a confidence above 0.9999"
    )
    assert neutral.startswith("WEIGHTING.MIN_COUNT: every weight was neutral to the end; with fewer than 2 emb")
    (neutral,) = texts_of(tree, "WEIGHTING.MIN_COUNT", 200)
    assert neutral.startswith("WEIGHTING.MIN_COUNT: every weight was neutral to the end; with fewer than 200 emb")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            ["RPPI.BOX_SCORE", 1.0],
            "of a confidence of 0.2 (RPPI.CONF) was ever in a box of its class with a score of 1.0",
        ),
        (["RPPI.CONF", 1.0], "of a confidence of 1 (RPPI.CONF) was ever in a box of its class with a score of 0.05"),
    ],
)
def test_reliable_pixels_that_never_were_are_told(tree, keys, text):
    (found,) = texts_of(tree, *SMALL_DETECTOR, "WEIGHTING.MIN_COUNT", 1, *keys)
    assert found == f"RPPI: no pseudo-label {text} (RPPI.BOX_SCORE): none joined the memory bank"


def test_a_class_that_no_image_shows_and_a_pixel_that_is_no_negative_are_told(tree):
    (shown,) = texts_of(tree, *AEL, "FRAMEWORK.AEL.PRESENCE_AREA", 1.0, "WEIGHTING.ENABLED", False)
    assert shown.startswith("FRAMEWORK.AEL.PRESENCE_AREA: no unlabeled image's last view showed a class on 1 of it")
    # Of three classes none has rank 5, and of no labeled pixel is another class among the first zero.
    ranks = ["FRAMEWORK.U2PL.NEGATIVE_RANKS", (0, 1), "WEIGHTING.ENABLED", False]
    framework, batch = make(tree, *U2PL, *ranks)
    framework.contrast.ranks = (5, 6)
    framework.contrast.as_published = True
    (negatives,) = ineffective_parts(framework, sums_of(framework, batch))
    assert negatives.startswith("FRAMEWORK.U2PL.NEGATIVE_RANKS: no pixel was ever a negative of any class")


def test_an_entropy_that_keeps_nothing_is_told(tree):
    framework, batch = make(tree, *U2PL, "WEIGHTING.ENABLED", False)
    for parameter in framework.teacher.sem_seg_head.predictor.parameters():
        torch.nn.init.zeros_(parameter)  # all classes alike, in all pixels
    texts = ineffective_parts(framework, sums_of(framework, batch, steps=1))
    assert texts[0].startswith("no pseudo-label ever reached an entropy below the batch's percentile")


@pytest.mark.parametrize("opts", [SUPERVISED, SMALL_FPN])
def test_supervised_training_has_nothing_to_tell(tree, opts):
    framework = build_on_meta(tree.cfg(*SMALL, *opts))
    assert ineffective_parts(framework, {}) == []
