"""The parts of which a label map consists."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np


def number_components(
    labels: np.ndarray, divided: Collection[int], connectivity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the connected components of a label map.

    Args:
        labels: (H, W) uint8 class ids.
        divided: the classes of which each component is a part; the others are one part each, connected or not.
        connectivity: 4 or 8.

    Returns:
        numbers (H, W) int32 from 0 on; of each part its class (N,) and its box (N, 4), x, y, width, height in pixels.
    """
    numbers = np.zeros(labels.shape, np.int32)
    classes: list[int] = []
    boxes = []
    for class_id in np.flatnonzero(np.bincount(labels.ravel())).tolist():
        binary = (labels == class_id).view(np.uint8)
        if class_id in divided:
            count, found, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=connectivity)
            boxes.append(stats[1:, :4])
        else:
            count, found = 2, binary
            boxes.append(np.array([cv2.boundingRect(binary)]))
        numbers += found
        numbers[binary.view(bool)] += len(classes) - 1
        classes += [class_id] * (count - 1)
    return numbers, np.array(classes), np.concatenate(boxes)
