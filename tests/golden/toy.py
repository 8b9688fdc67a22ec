"""A fixed toy: weights, batch and random samples from numpy alone, so that its losses can be kept as golden figures."""

import numpy as np
import torch
from helpers import RESNET18, SMALL

from wpl_d2 import build_framework, get_cfg
from wpl_d2.frameworks.augseg import InjectionSamples
from wpl_d2.frameworks.pc2seg import PairSamples
from wpl_d2.frameworks.pcr.pcr import Samples as PCRSamples
from wpl_d2.frameworks.u2pl.pixel_contrast import ContrastSamples
from wpl_d2.frameworks.unimatch_v2 import Samples as UniMatchV2Samples
from wpl_d2.structures import Detections

SIZE = (48, 64)
CLASSES = 3
SPREADS = {"predictor": 1.0, "sem_seg_head.mask.": 600.0}
"""Of the weights of some layers, so that the toy is neither sure of everything nor of nothing."""
BOXES = ((4.0, 2.0, 40.0, 46.0, 0, 0.9), (10.0, 6.0, 60.0, 40.0, 1, 0.8), (0.0, 0.0, 64.0, 48.0, 2, 0.3))
"""x0, y0, x1, y1, class and score; at a BOX_SCORE of .5 the last is not believed."""


def toy_framework(*opts):
    cfg = get_cfg()
    cfg.merge_from_list([*SMALL, *RESNET18, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES, *opts])
    framework = build_framework(cfg)
    # The layout of the kept figures: another one rounds otherwise, and by the fifth step a pixel has another label.
    framework.to(memory_format=torch.contiguous_format)
    for module in framework.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for student in framework.students:
            for name, parameter in sorted(student.named_parameters()):
                if parameter.ndim > 1:
                    spread = next((own for part, own in SPREADS.items() if part in name), 2.0)
                    drawn = rng.standard_normal(parameter.shape) * (spread / parameter[0].numel()) ** 0.5
                    parameter.copy_(torch.from_numpy(drawn))
                elif name.endswith("bias"):
                    parameter.zero_()
            for name, buffer in sorted(student.named_buffers()):
                if name.endswith((".texts", ".concepts")):
                    drawn = torch.from_numpy(rng.standard_normal(buffer.shape))
                    buffer.copy_(drawn / drawn.norm(dim=1, keepdim=True))
    for student in framework.students:
        framework.reset()
        _calibrate(student)
    framework.reset()
    return framework


@torch.no_grad()
def _calibrate(student):
    """Make BN's statistics those of the toy's images: a teacher in evaluation mode knows no others."""
    norms = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    items = [item for stream in toy_batch().values() for item in stream]
    student.decode(student.encode(student.normalize(torch.stack([item["image"] for item in items]))), SIZE)
    for norm in norms:
        norm.momentum = 0.1


def toy_batch():
    """Two labeled images with void, two unlabeled ones with padding and boxes; a color for each class, and noise."""
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
            valid = torch.ones(SIZE, dtype=torch.bool)
            valid[:, 44 + 8 * number :] = False
            labeled.append({"image": image, "sem_seg": torch.from_numpy(mask), "valid": valid})
            continue
        strong = torch.from_numpy(rng.integers(0, 60, (2, 3, *SIZE)).astype(np.uint8)) + image // 2
        valid = torch.zeros(SIZE, dtype=torch.bool)
        valid[: 40 + number, : 50 + 2 * number] = True
        unlabeled.append({"image": image, "strong": strong, "valid": valid, "detections": _detections()})
    return {"labeled": labeled, "unlabeled": unlabeled}


def batch_with_strong_labeled_views(seed):
    """`toy_batch`, with a strong view of each labeled image."""
    batch, rng = toy_batch(), np.random.default_rng(seed)
    for item in batch["labeled"]:
        noise = torch.from_numpy(rng.integers(0, 60, (1, *item["image"].shape)).astype(np.uint8))
        item["strong"] = noise + item["image"] // 2
    return batch


def stored_batch(weighted):
    """The batch with stored labels of the unlabeled images, and weights in fifths if `weighted`."""
    rng, batch = np.random.default_rng(6), toy_batch()
    for item in batch["unlabeled"]:
        labels = torch.from_numpy(rng.integers(0, CLASSES, (6, 8)).repeat(8, 0).repeat(8, 1))
        weight = torch.from_numpy(rng.integers(0, 6, SIZE).astype(np.float32) / 5)
        item["pseudo_labels"] = labels.masked_fill(~item["valid"], 255)
        item["pseudo_weight"] = weight if weighted else torch.ones(SIZE)
    return batch


def noise(step):
    """What Cutout puts into the boxes of two images."""
    return np.random.default_rng([7, step]).integers(0, 255, (2, 3, *SIZE), dtype=np.uint8)


def _detections():
    table = torch.tensor(BOXES)
    return Detections(table[:, :4], table[:, 5], table[:, 4].long())


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


def factors(step, channels):
    """UniMatch V2's factors of the channels of two views of two images, of which one keeps all."""
    first = np.stack([2.0 * kept_channels(step, image, channels) for image in range(2)])
    first[step % 2] = 1
    return torch.from_numpy(np.concatenate([first, 2 - first])).float()


def mixing_plan(step):
    """AugSeg's samples for two images: for each its partner and chance, and a patch and a box as of `mix_box`."""
    rng = np.random.default_rng([4, step])
    boxes = [[mix_box(step, 10 + kind, image) or (0, 20, 0, 30) for image in range(2)] for kind in range(2)]
    # So untrained a teacher's scores are a few percent.
    return rng.permutation(2).tolist(), (0.07 * rng.random(2)).tolist(), *boxes


def search_direction(step, *shape):
    """Where PS-MT's search for noise starts."""
    return torch.from_numpy(np.random.default_rng([6, step]).random(shape, dtype=np.float32)) - 0.5


def past_members(step, count):
    """PrevMatch's places in a pool of `count` students, and their weights."""
    rng = np.random.default_rng([8, step])
    places = rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
    return dict(zip(places, rng.dirichlet(np.ones(len(places))).tolist(), strict=True))


def cell_places(step, images, regions):
    """CorrMatch's places among an image's valid cells, (images, regions) numbers in [0, 1)."""
    return np.random.default_rng([9, step]).random((images, regions), dtype=np.float32)


def contrast_samples(step, *shape):
    """U2PL's samples, numbers in [0, 1)."""
    return np.random.default_rng([5, step, *shape]).random(shape, dtype=np.float32)


GRID = 6


def grid_samples(step, image):
    """PCR's samples of an image, (2, GRID, GRID) numbers in [0, 1); labeled images are counted first."""
    return np.random.default_rng([6, step, image]).random((2, GRID, GRID), dtype=np.float32)


def fix_random_samples(framework):
    """Give a framework the boxes, channels and plans above for its random samples, if it has any; AEL keeps its own.

    Returns:
        a dict whose "step" is to be set in each step.
    """
    at = {"step": 0}

    def masks(boxes):
        drawn = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
        for mask, box in zip(drawn, boxes, strict=True):
            if box:
                mask[box[0] : box[1], box[2] : box[3]] = True
        return drawn

    def cutmix(views):
        return [masks([mix_box(at["step"], n, i) for i in range(len(view))]) for n, view in enumerate(views)]

    def dropout(features):
        kept = np.stack([kept_channels(at["step"], i, features.shape[1]) for i in range(len(features))])
        return features * torch.from_numpy(kept)[:, :, None, None] * 2.0

    def cutmix_and_channels(views):
        widths = {shape.channels for shape in framework.student.backbone.output_shape().values()}
        return UniMatchV2Samples(cutmix(views), {width: factors(at["step"], width) for width in widths})

    def injection(views):
        partner, chance, *boxes = mixing_plan(at["step"])
        return InjectionSamples(torch.tensor(partner), torch.tensor(chance), *map(masks, boxes))

    def contrast(views):
        classes, anchors, negatives = framework.contrast.shape
        sizes = (classes, anchors), (classes, anchors, negatives), (classes, 1)
        drawn = ContrastSamples(*(torch.from_numpy(contrast_samples(at["step"], *size)) for size in sizes))
        return drawn, *cutmix([views])

    def pairs():
        anchors, negatives = framework.contrast.shape
        sizes = (anchors,), (anchors, negatives)
        return PairSamples(*(torch.from_numpy(contrast_samples(at["step"], *size)) for size in sizes))

    def mask_and_grids(labeled, views):
        grids = [grid_samples(at["step"], image) for image in range(len(labeled) + len(views))]
        return PCRSamples(*cutmix([views]), torch.from_numpy(np.stack(grids)))

    def one_mask(views):
        return cutmix([views])[0]

    def cutout(views):
        return one_mask(views), torch.from_numpy(noise(at["step"]))

    def mask_and_partner(views):
        return [(one_mask(views), torch.arange(len(views)) - 1)]

    fixed = {
        "CPS": one_mask,
        "CorrMatch": cutmix,
        "PCR": mask_and_grids,
        "PseudoSeg": one_mask,
        "MeanTeacher": cutmix,
        "PC2Seg": pairs,
        "PSMT": mask_and_partner,
        "PrevMatch": cutmix,
        "UniMatch": cutmix,
        "DAW": cutmix,
        "SemiVL": cutmix,
        "UniMatchV2": cutmix_and_channels,
        "AugSeg": injection,
        "STPlusPlus": cutout,
        "U2PL": contrast,
    }
    framework.random_samples = fixed.get(type(framework).__name__, getattr(framework, "random_samples", None))
    framework.random_members = lambda: past_members(at["step"], framework.past_students)
    framework.random_cells = lambda images: torch.from_numpy(cell_places(at["step"], images, framework.regions))
    framework.random_direction = lambda maps: search_direction(at["step"], *maps.shape)
    if hasattr(framework, "feature_dropout"):
        assert framework.feature_dropout.p == 0.5
        framework.feature_dropout.forward = dropout
    return at
