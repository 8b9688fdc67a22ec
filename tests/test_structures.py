"""What flows between the packages."""

import pytest
import torch

from wpl_d2.structures import IGNORE, among_classes


@pytest.mark.parametrize("classes", [(), (2,), (3, 0)])
def test_pixels_of_some_classes_are_found_and_those_without_a_label_never_are(classes):
    labels = torch.tensor([[0, 1, IGNORE], [2, 3, 0]])
    assert among_classes(labels, classes).tolist() == [[label in classes for label in row] for row in labels.tolist()]
