"""The runs behind the paper's figures, made by rules from their names: which preset, and what over it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wpl_d2.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[3]
_NAME = re.compile(
    r"(?P<data>voc|cityscapes|coco|ade20k)_(?P<split>\w+)/(?P<network>\w+)/(?P<host>[a-z]\w*?)"
    r"(?P<weights>_ppw|_wpl)?(_(?P<knob>alpha|box_score|bank_size|k)_(?P<value>[\d.]+))?(?P<judged>_judged)?"
)
_PS_MT = {
    "voc": {
        **{"92": (0.06, 10, 80), "183": (0.6, 25, 80), "366": (0.6, 55, 80), "732": (0.6, 110, 80)},
        **{"1464": (0.6, 225, 80), "1_16": (1.5, 100, 80), "1_8": (1.5, 205, 80), "1_4": (1.5, 410, 200)},
    },
    "cityscapes": {"1_8": (3.0, 230, 320), "1_4": (3.0, 465, 450), "1_2": (3.0, 930, 550)},
}
"""PS-MT's alpha, burn-in (five epochs of the labeled images, in steps) and epochs for each split, U2PL's as CPS's."""
_KNOBS = {
    "alpha": "FRAMEWORK.ALPHA",
    "box_score": "RPPI.BOX_SCORE",
    "bank_size": "WEIGHTING.BANK_SIZE",
    "k": "WEIGHTING.K",
}
_BASIC_R50 = ("MODEL.RESNETS.DEPTH", "50", "MODEL.WEIGHTS", "torchvision://resnet50")
"""Of ST++, whose networks have the basic stem."""
_NETWORKS = {
    "r50": ("MODEL.RESNETS.DEPTH", "50", "MODEL.WEIGHTS", "detectron2://DeepLab/R-52.pkl"),
    "dinov2_s": (
        *("MODEL.TIMM.NAME", "vit_small_patch14_dinov2", "MODEL.WEIGHTS", "timm://vit_small_patch14_dinov2.lvd142m"),
        *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "64", "MODEL.SEM_SEG_HEAD.DPT_CHANNELS", "(48, 96, 192, 384)"),
    ),
    "dinov2_b_frozen": ("MODEL.VIT.FROZEN", "True"),
    "dinov2_l": (
        *("MODEL.TIMM.NAME", "vit_large_patch14_dinov2", "MODEL.WEIGHTS", "timm://vit_large_patch14_dinov2.lvd142m"),
        *("MODEL.VIT.LAYERS", "(4, 11, 17, 23)", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "256"),
        *("MODEL.SEM_SEG_HEAD.DPT_CHANNELS", "(256, 512, 1024, 1024)"),
    ),
}
"""What a network has over the preset; any other is the preset's own."""


@dataclass(frozen=True)
class Recipe:
    """A run: a preset of configs/ and overrides.

    Attributes:
        name: such as "voc_92/r101/unimatch_wpl"; also the run's folder.
        data: "voc", "cityscapes", "coco" or "ade20k".
        split: as in the names of the data set's lists.
        network: such as "r50", "r101", "xception" or "dinov2_b".
        host: a semi-supervised method, or "supervised".
        weights: "", "_ppw" or "_wpl", as in the presets' names.
        knob: "alpha", "box_score", "bank_size", "k", or "" where nothing is varied.
        value: the knob's.
        judged: whether the run judges the pseudo-labels of the training that has the rest of the name.
    """

    name: str
    data: str
    split: str
    network: str
    host: str
    weights: str = ""
    knob: str = ""
    value: str = ""
    judged: bool = False

    @classmethod
    def from_name(cls, name: str) -> Recipe:
        """What a name stands for.

        Raises:
            InputError: it follows no rule.
        """
        if not (parts := _NAME.fullmatch(name)):
            raise InputError(f"{name}: is not a run; names are such as voc_92/r101/unimatch_wpl, see `list`")
        found = {key: value or "" for key, value in parts.groupdict().items()}
        return cls(name, **{**found, "judged": bool(found["judged"])})  # type: ignore[arg-type]

    @property
    def config(self) -> Path:
        """The preset, which may be missing; for VOC's blender lists one of their own, if there is one."""
        folder, plain = REPOSITORY / "configs" / self.data, f"{self.host}{self.weights}.yaml"
        blender = [f"{self.host}_blender{self.weights}.yaml"] if self.data == "voc" and "_" in self.split else []
        names = [*blender, plain, f"{self.host}{self.weights}_cached.yaml"]
        return folder / next((name for name in names if (folder / name).is_file()), plain)

    @property
    def training(self) -> Recipe:
        """The training that is judged, or the run itself."""
        return Recipe.from_name(self.name.removesuffix("_judged"))

    @property
    def lists(self) -> str:
        """The lists' names without "_labeled" and "_unlabeled"."""
        return f"{self.data}_{self.split}"

    def boxes(self, root: Path) -> Path:
        """The file of the split's cached boxes, one for all runs that use them."""
        return root / "detector" / self.lists / "boxes.npz"

    def folder(self, root: Path, seed: int) -> Path:
        """Where the run leaves its files."""
        return root / self.name / f"seed_{seed}"

    def overrides(self, root: Path) -> tuple[str, ...]:
        """KEY VALUE pairs over the preset.

        Args:
            root: of all runs.
        """
        opts: tuple[str, ...] = ("DATASETS.SPLIT", self.split)
        basic = self.network == "r50" and self.host == "st_plus_plus"
        opts += _BASIC_R50 if basic else _NETWORKS.get(self.network, ())
        if self.weights == "_wpl" or self.judged:
            opts += ("MODEL.DETECTOR.MODE", "cached", "MODEL.DETECTOR.CACHE", str(self.boxes(root)))
        if own := _PS_MT.get(self.data, {}).get(self.split.removeprefix("u2pl_")) if self.host == "ps_mt" else None:
            keys = ("FRAMEWORK.ALPHA", "FRAMEWORK.BURN_IN", "SOLVER.EPOCHS")
            opts += tuple(word for key, value in zip(keys, own, strict=True) for word in (key, str(value)))
        # The figures of the paper's first table are those of its ablation at this alpha.
        if (self.data, self.host, self.weights) == ("voc", "unimatch", "_wpl") and self.knob != "alpha":
            opts += ("FRAMEWORK.ALPHA", "0.4")
        if self.knob:
            opts += (_KNOBS[self.knob], self.value)
        return opts
