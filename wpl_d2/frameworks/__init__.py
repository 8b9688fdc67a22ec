"""Semi-supervised methods, one file each, on one protocol."""

from .ael import AEL
from .allspark import AllSpark
from .augseg import AugSeg
from .base import FRAMEWORK_REGISTRY, Framework, build_framework
from .corrmatch import CorrMatch
from .cps import CPS
from .daw import DAW
from .detector import Detector
from .diagnostics import ineffective_keys, ineffective_parts
from .mean_teacher import MeanTeacher
from .pc2seg import PC2Seg
from .pcr import PCR
from .prevmatch import PrevMatch
from .pseudoseg import PseudoSeg
from .psmt import PSMT
from .semivl import SemiVL
from .st_plus_plus import STPlusPlus, STPlusPlusLabeler
from .supervised import Supervised, SupervisedEMA
from .u2pl import U2PL
from .unimatch import UniMatch
from .unimatch_v2 import UniMatchV2

__all__ = [
    "AEL",
    "CPS",
    "DAW",
    "FRAMEWORK_REGISTRY",
    "PCR",
    "PSMT",
    "U2PL",
    "AllSpark",
    "AugSeg",
    "CorrMatch",
    "Detector",
    "Framework",
    "MeanTeacher",
    "PC2Seg",
    "PrevMatch",
    "PseudoSeg",
    "STPlusPlus",
    "STPlusPlusLabeler",
    "SemiVL",
    "Supervised",
    "SupervisedEMA",
    "UniMatch",
    "UniMatchV2",
    "build_framework",
    "ineffective_keys",
    "ineffective_parts",
]
