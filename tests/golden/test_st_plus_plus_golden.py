"""ST++ against its plain reference and against figures kept from it."""

from functools import partial

import pytest
import torch
from compare import RUNS, assert_five_steps_equal, kept_figures
from st_plus_plus_reference import PlainSTPlusPlus, plain_image_score
from toy import stored_batch

from wpl_d2.inference.image_scores import image_score

OPTS = ["FRAMEWORK.NAME", "STPlusPlus", "INPUT.STRONG.VIEWS", 1]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    def reference(framework, weigher):
        return PlainSTPlusPlus(framework.student, weigher)

    batch = partial(stored_batch, weighted=run == "weighted")
    assert_five_steps_equal("st_plus_plus", run, OPTS, reference, batch, reliable=-1)


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("st_plus_plus")[run] for run in RUNS)
    for without, with_weights in zip(plain, weighted, strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]


def test_an_image_score_equals_the_reference():
    generator = torch.Generator().manual_seed(0)
    # Of the five classes the last one is nowhere, and the first one not in the last map.
    labels = [torch.randint(low, 4, (9, 7), generator=generator) for low in (0, 0, 1)]
    assert image_score(labels, 5).item() == pytest.approx(plain_image_score(labels), abs=1e-12)
    assert image_score([labels[0]] * 3, 5).item() == 1
