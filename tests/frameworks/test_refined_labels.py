"""Mended pseudo-labels in a framework's step, and configs in which nothing could mend them."""

import pytest
from helpers import RESNET18, SMALL, SMALL_FPN
from steps import losses_of, make

import wpl_d2
from wpl_d2.utils.errors import InputError


@pytest.mark.parametrize("name", ["component_vote", "tta", "prototype"])
def test_the_student_learns_the_mended_labels(tree, name):
    framework, batch = make(tree, *RESNET18, "PSEUDO_LABEL.REFINE", name)
    plain, _ = make(tree, *RESNET18)
    losses_of(framework, batch)
    losses_of(plain, batch)
    mended, labels = (model.last_step.pseudo_labels.labels for model in (framework, plain))
    assert mended.shape == labels.shape and (name == "prototype" or (mended != labels).any())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["PSEUDO_LABEL.REFINE", "detector"], "detector needs boxes; set MODEL.DETECTOR.MODE shared or cached"),
        (["PSEUDO_LABEL.REFINE", "prototype", "WEIGHTING.ENABLED", False], "set WEIGHTING.ENABLED True"),
        ([*SMALL_FPN, "PSEUDO_LABEL.REFINE", "detector"], "detector, but a detector labels no pixels; set it to none"),
        (["PSEUDO_LABEL.REFINE", "component"], "'component' is not known; did you mean component_vote"),
    ],
)
def test_what_cannot_be_mended_is_said(tree, opts, message):
    with pytest.raises(InputError, match=message):
        wpl_d2.build_framework(tree.cfg(*SMALL, *opts))


def test_votes_are_for_classes_with_objects(tree):
    tree.describe(objects=None)
    with pytest.raises(InputError, match="component_vote is for classes with objects"):
        wpl_d2.build_framework(tree.cfg(*SMALL, "PSEUDO_LABEL.REFINE", "component_vote"))
