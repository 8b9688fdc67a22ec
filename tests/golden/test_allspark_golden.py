"""AllSpark against its plain reference and against figures kept from it."""

from functools import partial

import numpy as np
import pytest
import torch
from allspark_reference import PlainAllSpark
from compare import RUNS, assert_five_steps_equal, kept_figures
from helpers import ALLSPARK
from toy import SIZE, batch_with_strong_labeled_views

THRESHOLD, MEMORY_AFTER = 0.45, 2
OPTS = [*ALLSPARK, "FRAMEWORK.THRESHOLD", THRESHOLD, "FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS", MEMORY_AFTER]
OPTS += ["INPUT.CROP_SIZE", SIZE, "MODEL.TIMM.NAME", "test_resnet"]


@pytest.mark.parametrize("run", RUNS)
def test_five_steps_equal_the_reference_and_the_golden_figures(run):
    seen = {}

    def reference(framework, weigher):
        first = np.random.default_rng(11).standard_normal(framework.memory.ring.shape)
        framework.memory.ring.copy_(torch.from_numpy(first))
        memory = [list(own) for own in framework.memory.ring.clone()]
        seen["framework"] = framework
        seen["reference"] = PlainAllSpark(framework.student, THRESHOLD, memory, MEMORY_AFTER, weigher)
        return seen["reference"]

    assert_five_steps_equal("allspark", run, OPTS, reference, partial(batch_with_strong_labeled_views, 10))
    joined = torch.tensor(seen["reference"].joined)
    channels = seen["framework"].memory.ring.shape[1]
    assert joined.sum() == 5 * 2 * channels and (joined > channels).all()
    # Two models that differ in a last bit may disagree on the class of a channel.
    assert (seen["framework"].memory.pushed - joined).abs().max() <= 5


def test_the_golden_figures_tell_the_weights_apart():
    plain, weighted = (kept_figures("allspark")[run] for run in RUNS)
    # Nothing is in the bank at the first step, and much from the second on.
    assert plain[0] == weighted[0]
    for without, with_weights in zip(plain[1:], weighted[1:], strict=True):
        assert 0 < with_weights["loss_unsup"] < 0.8 * without["loss_unsup"]
