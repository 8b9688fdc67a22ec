"""A fixed toy: weights, batch and random draws from numpy alone, so that its losses can be kept as golden figures."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from helpers import SMALL

from wpl_d2 import build_framework, get_cfg

SIZE = (48, 64)
CLASSES = 3
BOXES = ((4.0, 2.0, 40.0, 46.0, 0, 0.9), (10.0, 6.0, 60.0, 40.0, 1, 0.8), (0.0, 0.0, 64.0, 48.0, 2, 0.3))
"""x0, y0, x1, y1, class and score; at a BOX_SCORE of .5 the last is not believed."""


def toy_framework(*opts):
    cfg = get_cfg()
    cfg.merge_from_list([*SMALL, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES, *opts])
    framework = build_framework(cfg)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(framework.student.named_parameters()):
            if parameter.ndim > 1:
                spread = 1.0 if "predictor" in name else 2.0
                drawn = rng.standard_normal(parameter.shape) * (spread / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.from_numpy(drawn))
    framework.reset()
    return framework


def toy_batch():
    """Two labeled images with void, two unlabeled ones with padding and boxes; a colour for each class, and noise."""
    rng = np.random.default_rng(1)
    labeled, unlabeled = [], []
    for number in range(4):
        mask = np.full(SIZE, number % CLASSES)
        mask[8:30, 10 + 4 * number : 44] = (number + 1) % CLASSES
        mask[34:44, 6 : 50 - 3 * number] = (number + 2) % CLASSES
        image = np.eye(CLASSES)[mask].transpose(2, 0, 1) * 160 + rng.integers(0, 90, (3, *SIZE))
        image = torch.from_numpy(image.astype(np.uint8))
        mask[:3] = 255
        if number < 2:
            labeled.append({"image": image, "sem_seg": torch.from_numpy(mask)})
            continue
        strong = torch.from_numpy(rng.integers(0, 60, (2, 3, *SIZE)).astype(np.uint8)) + image // 2
        valid = torch.zeros(SIZE, dtype=torch.bool)
        valid[: 40 + number, : 50 + 2 * number] = True
        unlabeled.append({"image": image, "strong": strong, "valid": valid, "boxes": _boxes()})
    return {"labeled": labeled, "unlabeled": unlabeled}


def _boxes():
    table = torch.tensor(BOXES)
    return Instances(SIZE, pred_boxes=Boxes(table[:, :4]), scores=table[:, 5], class_ids=table[:, 4].long())


def mix_box(step, view, image):
    """(top, bottom, left, right) of the box that the view of the image takes from its partner, or None."""
    rng = np.random.default_rng([2, step, view, image])
    if rng.random() < 0.25:
        return None
    top, left = rng.integers(0, 24), rng.integers(0, 32)
    return int(top), int(top + rng.integers(8, 24)), int(left), int(left + rng.integers(8, 32))


def kept_channels(step, image, channels):
    """Which of a feature map's channels the perturbed stream keeps."""
    return np.random.default_rng([3, step, image, channels]).random(channels) < 0.5


def fix_draws(monkeypatch):
    """Let the product draw these boxes and channels; returns where the number of the step is to be put."""
    at = {"step": 0, "view": 0}

    def masks(batch, size, prob, area, ratio, device="cpu"):
        drawn = torch.zeros(batch, *size, dtype=torch.bool)
        for image in range(batch):
            if box := mix_box(at["step"], at["view"], image):
                drawn[image, box[0] : box[1], box[2] : box[3]] = True
        at["view"] += 1
        return drawn

    def dropout2d(features, p):
        assert p == 0.5
        kept = np.stack([kept_channels(at["step"], i, features.shape[1]) for i in range(len(features))])
        return features * torch.from_numpy(kept)[:, :, None, None] * 2.0

    monkeypatch.setattr("wpl_d2.data.augmentation.mixing.cutmix_masks", masks)
    monkeypatch.setattr("torch.nn.functional.dropout2d", dropout2d)
    return at
