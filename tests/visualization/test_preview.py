import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.data import EvalMapper
from wpl_d2.visualization import heatmap
from wpl_d2.visualization.preview import CELL, _cell, render_row


class FirstClass:
    """A refinement that labels everything as class 0."""

    def __init__(self, *needs):
        self.needs = frozenset(needs)

    def __call__(self, evidence, memory):
        return evidence.pseudo.replace(labels=torch.zeros_like(evidence.pseudo.labels))


def row_of(tree, refinement):
    torch.manual_seed(0)
    framework = build_framework(tree.cfg(*SMALL, "FRAMEWORK.THRESHOLD", 0.0)).eval()
    framework.refinement = refinement
    framework.weigher.weight = lambda evidence: (evidence.pseudo.labels == 0).float()
    name = f"{tree.name}_val"
    with torch.no_grad():
        return render_row(framework, EvalMapper()(DatasetCatalog.get(name)[0]), MetadataCatalog.get(name))


def test_the_weights_are_those_of_the_refined_pseudo_labels(tree):
    weight, plain = (np.asarray(row_of(tree, refinement)["weight"]) for refinement in (FirstClass(), None))
    assert np.array_equal(weight, np.asarray(_cell(heatmap(np.ones(weight.shape[:2])))))
    assert not np.array_equal(weight, plain)


def test_without_boxes_nothing_that_needs_them_is_drawn(tree):
    row = row_of(tree, FirstClass("boxes"))
    assert "weight" not in row and max(row["prediction"].size) == CELL
