"""What several test modules share."""

import resource
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wpl_d2 import build_framework, get_cfg
from wpl_d2.data import load_description, setup_datasets
from wpl_d2.data.detection_cache import CacheMetadata, DetectionCache
from wpl_d2.structures import Detections

_SYNCS = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "nonzero_numpy",
    "unique_consecutive",
    "unique_dim",
}
_COPIES = {"_to_copy", "copy_"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class forbid_host_sync(TorchDispatchMode):
    """Fails on every operation that would make the host wait for the device's result.

    On tensors of the CPU that is all but copies between devices. With a model on PyTorch's meta device, which has no
    results to wait for, these are found too, and what the CPU does with its own tensors is free.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        indices = args[1] if name in _INDEXED else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if (name in _SYNCS or by_mask) and not (self.on_meta and args[0].device.type == "cpu"):
            raise AssertionError(f"{func} waits for the device")
        result = func(*args, **kwargs)
        if name in _COPIES:
            other = args[1].device if name == "copy_" else result.device
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] and args[2]))
            if args[0].device != other and waits:
                raise AssertionError(f"{func} from {args[0].device} to {other} waits for the device")
        return result

    def __init__(self, on_meta=False):
        super().__init__()
        self.on_meta = on_meta
        self._lists = _forbid_lists_on_meta()

    def __enter__(self):
        self._lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._lists.__exit__(*error)


class _forbid_lists_on_meta(TorchFunctionMode):
    """Fails on tensors that are made of Python's numbers there: they are copied where no operation shows it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.device.type == "meta":
            raise AssertionError(f"{func} waits for the device")
        return result


@contextmanager
def files_up_to(size):
    """Within, no file can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


CLASSES = ["ground", "box", "ball"]


def write_detection_cache(path, keys, boxes, scores, classes):
    """A detection cache with the same detections in each of the tree's images."""
    found = Detections(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(classes))
    metadata = CacheMetadata("digest", tuple(CLASSES), 0.05)
    DetectionCache.from_images(metadata, dict.fromkeys(keys, ((50, 60), found))).save(path)
    return str(path)


@dataclass
class Tree:
    """A tiny data set on disk: `name` is unique, because Detectron2's catalog is global."""

    root: Path
    name: str

    @property
    def yaml(self):
        return self.root / "data.yaml"

    def image(self, name):
        return self.root / "images" / f"{name}.png"

    def mask(self, name):
        return self.root / "masks" / f"{name}.png"

    def write_mask(self, name, mask):
        Image.fromarray(mask).save(self.mask(name))

    def describe(self, **changes):
        text = {
            "name": self.name,
            "root": "./",
            "image": "images/{id}.png",
            "mask": "masks/{id}.png",
            "classes": CLASSES,
            "objects": ["ball", "box"],
            "lists": {"labeled": "labeled.txt", "unlabeled": "unlabeled.txt", "val": "val.txt"},
            **changes,
        }
        self.yaml.write_text(yaml.safe_dump({key: value for key, value in text.items() if value is not None}))
        return self.yaml

    def cfg(self, *overrides):
        cfg = get_cfg()
        cfg.DATASETS.DESCRIPTION = str(self.yaml)
        cfg.DATASETS.TRAIN = (f"{self.name}_labeled",)
        cfg.DATASETS.UNLABELED = (f"{self.name}_unlabeled",)
        cfg.DATASETS.TEST = (f"{self.name}_val",)
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.UNLABELED_IMS_PER_BATCH = 2
        cfg.INPUT.CROP_SIZE = (40, 48)
        cfg.SEED = 3
        cfg.merge_from_list(list(overrides))
        setup_datasets(cfg)
        return cfg


def make_tree(folder):
    """Write the data set of the fixture `tree` below `folder`, whose name must be unique."""
    made = Tree(folder / "set", folder.name)
    (made.root / "images").mkdir(parents=True)
    (made.root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("labeled", 3), ("unlabeled", 5), ("val", 2)):
        names = [f"{stem}{i}" for i in range(count)]
        (made.root / f"{stem}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(made.image(name))
            mask = np.zeros((50, 60), dtype=np.uint8)
            mask[5 + i : 25, 8:30] = 1
            mask[30:45, 35 : 50 + i] = 2
            mask[:3] = 255
            made.write_mask(name, mask)
    made.describe()
    return made


def build_on_meta(cfg):
    """The framework of a config whose data is not there: shapes without numbers, so that nothing is drawn or stored."""
    description = load_description(cfg.DATASETS.DESCRIPTION)
    cfg = cfg.clone()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(description.classes)
    cfg.MODEL.DETECTOR.CLASSES = description.object_ids
    cfg.MODEL.DEVICE = "meta"
    cfg.DATASETS.UNLABELED = ()  # what AEL remembers of each image is left out
    with torch.device("meta"):
        return build_framework(cfg)


# For tests that compare with its published weights or layers, or that need predictions of several classes at once.
RESNET18 = ["MODEL.TIMM.NAME", "resnet18"]
# A model and a schedule that a test can afford: a backbone of 0.4 M weights, small crops, detector and weighting on.
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_resnet"),
    *("MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", True, "INPUT.CROP_SIZE", (48, 64)),
    *("WEIGHTING.ENABLED", True, "WEIGHTING.MIN_COUNT", 2, "WEIGHTING.LABELED_CONF", 0.2),
    *("FRAMEWORK.THRESHOLD", 0.2, "FRAMEWORK.CUTMIX.PROB", 1.0, "TEST.EVAL_PERIOD", 0),
]
SMALL_DETECTOR = [
    *("MODEL.DETECTOR.MODE", "shared", "MODEL.DETECTOR.CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        [[16, 32]],
        "RPPI.ENABLED",
        True,
        "RPPI.BOX_SCORE",
        0.05,
        "RPPI.CONF",
        0.2,
    ),
]
# A detector alone on a feature pyramid.
SMALL_FPN = [
    *("FRAMEWORK.NAME", "Detector", "MODEL.META_ARCHITECTURE", "FPNDetector", "MODEL.DETECTOR.MODE", "alone"),
    *("MODEL.BACKBONE.OUTPUT_STRIDE", 32, "MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"], "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]], "WEIGHTING.ENABLED", False),
]
UNIMATCH = ["FRAMEWORK.NAME", "UniMatch", "INPUT.STRONG.VIEWS", 2]
U2PL = [
    *("FRAMEWORK.NAME", "U2PL", "FRAMEWORK.EMA_BUFFERS", "none", "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 16),
    *("FRAMEWORK.U2PL.QUEUE_SIZE", 100, "FRAMEWORK.U2PL.QUEUE_SIZE_FIRST", 150, "FRAMEWORK.U2PL.KEYS_PER_STEP", 40),
    *("FRAMEWORK.U2PL.ANCHORS", 16, "FRAMEWORK.U2PL.NEGATIVES", 5),
]
AEL = [
    *("FRAMEWORK.NAME", "AEL", "FRAMEWORK.EMA_BUFFERS", "none", "INPUT.STRONG.VIEWS", 0, "INPUT.PASTE.PROB", 0.8),
    *("FRAMEWORK.AEL.PRESENCE_AREA", 0.1, "FRAMEWORK.AEL.COMPONENT_AREA", 0.02, "FRAMEWORK.AEL.MOMENTUM", 0.5),
]
# Weights that learn, in all the ways that there are.
LEARNED = [
    *("WEIGHTING.KIND", ("calibrated", "softmatch"), "WEIGHTING.PER_CLASS", True, "WEIGHTING.MOMENTUM", 0.5),
    *("WEIGHTING.CALIBRATED.PERIOD", 1),
]
DAW = ["FRAMEWORK.NAME", "DAW", "INPUT.STRONG.VIEWS", 2]
ST_PLUS_PLUS = ["FRAMEWORK.NAME", "STPlusPlus", "INPUT.STRONG.VIEWS", 1]
UNIMATCH_V2 = ["FRAMEWORK.NAME", "UniMatchV2", "INPUT.STRONG.VIEWS", 2]
# A vision transformer of timm's tests, with patches of 16 pixels, under a small decoder.
SMALL_VIT = [
    *("MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.TIMM.NAME", "test_vit"),
    *("MODEL.SEM_SEG_HEAD.NAME", "DPTHead", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.SEM_SEG_HEAD.DPT_CHANNELS", (8, 16, 24, 32)),
]
# SegFormer's smallest encoder, under its decoder.
SMALL_MIT = [
    *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "mit_b0", "MODEL.BACKBONE.OUTPUT_STRIDE", 32),
    *("MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead", "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64),
]
# With the memory from the second step on.
ALLSPARK = [
    *("FRAMEWORK.NAME", "AllSpark", "MODEL.SEM_SEG_HEAD.NAME", "AllSparkHead", "INPUT.STRONG.LABELED", True),
    *("INPUT.STRONG.VIEWS", 0, "FRAMEWORK.ALLSPARK.MEMORY_AFTER_STEPS", 1),
]
# SemiVL's network on timm's transformer above.
SMALL_CLIP = [
    *("MODEL.BACKBONE.NAME", "build_maskclip_backbone", "MODEL.TIMM.NAME", "test_vit", "MODEL.MASKCLIP.DIM", 256),
    *("MODEL.SEM_SEG_HEAD.NAME", "VLGHead", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 64),
    *("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32, 16]),
]
# With a ResNet beside CLIP, and the weights on all that it learns from unlabeled images.
SEMIVL = [
    *("FRAMEWORK.NAME", "SemiVL", "INPUT.STRONG.VIEWS", 2, *SMALL_CLIP, "FRAMEWORK.SEMIVL.GUIDANCE_CONF", 0.4),
    *("FRAMEWORK.SEMIVL.WEIGHTED", ("guidance", "consistency"), "MODEL.MASKCLIP.LAYERS", (2,)),
]
CPS = ["FRAMEWORK.NAME", "CPS"]
CORRMATCH = [
    *("FRAMEWORK.NAME", "CorrMatch", "MODEL.METHOD_HEAD.NAME", "CorrelationHead", "MODEL.METHOD_HEAD.CHANNELS", 32),
    *("FRAMEWORK.CORRMATCH.REGIONS", 16, "FRAMEWORK.CORRMATCH.MOMENTUM", 0.9),
]
PREVMATCH = [
    *("FRAMEWORK.NAME", "PrevMatch", "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.PREVMATCH.PUSH_STEPS", 1),
    *("FRAMEWORK.PREVMATCH.POOL_SIZE", 2, "FRAMEWORK.PREVMATCH.MEMBERS", 2, "FRAMEWORK.PREVMATCH.THRESHOLD", 0.2),
]
PC2SEG = [
    *("FRAMEWORK.NAME", "PC2Seg", "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 16),
    *("FRAMEWORK.PC2SEG.ANCHORS", 24, "FRAMEWORK.PC2SEG.NEGATIVES", 5),
]
PSMT = ["FRAMEWORK.NAME", "PSMT", "INPUT.STRONG.LABELED", True, "FRAMEWORK.PSMT.TOP_CLASSES", 2]
# One supervised step; then teachers change places after each one.
PSMT_PHASES = [*PSMT, "FRAMEWORK.BURN_IN", 1, "FRAMEWORK.PSMT.TURN_STEPS", 1, "FRAMEWORK.PSMT.RAMP_STEPS", 2]
PCR = ["FRAMEWORK.NAME", "PCR", "FRAMEWORK.PCR.BANK_SIZE", 64, "FRAMEWORK.PCR.GRID", 8]
PSEUDOSEG = ["FRAMEWORK.NAME", "PseudoSeg", "MODEL.METHOD_HEAD.NAME", "SelfAttentionCAM"]
AUGSEG = ["FRAMEWORK.NAME", "AugSeg", "INPUT.STRONG.KIND", "intensity"]
# What learns from pseudo-labels that it makes in each step.
FRAMEWORKS = {
    "AEL": AEL,
    "AllSpark": ALLSPARK,
    "AugSeg": AUGSEG,
    "CPS": CPS,
    "CorrMatch": CORRMATCH,
    "DAW": DAW,
    "MeanTeacher": [],
    "PrevMatch": PREVMATCH,
    "PC2Seg": PC2SEG,
    "PSMT": PSMT,
    "PCR": PCR,
    "PseudoSeg": PSEUDOSEG,
    "SemiVL": SEMIVL,
    "U2PL": U2PL,
    "UniMatch": UNIMATCH,
    "UniMatchV2": UNIMATCH_V2,
}
