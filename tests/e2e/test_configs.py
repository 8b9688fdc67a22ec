"""Every preset builds and switches nothing off, and a config differs from its twin by weighting and detector alone."""

from pathlib import Path

import pytest
import yaml
from helpers import build_on_meta

from wpl_d2.config import load_cfg
from wpl_d2.data import load_description
from wpl_d2.frameworks import ineffective_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("_base_", "datasets"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_preset_builds(path):
    cfg = load_cfg(str(path))
    description = load_description(cfg.DATASETS.DESCRIPTION)
    lists = {f"{description.name}_{name}" for name in description.lists}
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.UNLABELED, *cfg.DATASETS.TEST} <= lists
    framework = build_on_meta(cfg)
    assert type(framework).__name__ == cfg.FRAMEWORK.NAME
    assert ineffective_keys(cfg, framework) == []


def differing_keys(*names, data="camvid"):
    """The keys of one or two words in which two presets of a data set differ."""
    first, second = (yaml.safe_load(load_cfg(str(CONFIGS / data / f"{name}.yaml")).dump()) for name in names)
    return {
        f"{key}.{inner}" if inner else key
        for key in first
        for inner in (first[key] if isinstance(first[key], dict) else [""])
        if (first[key][inner] != second[key][inner] if inner else first[key] != second[key])
    }


@pytest.mark.parametrize(
    ("data", "split", "suffix"),
    [
        *(("camvid", split, suffix) for split in ("1_30", "1_8") for suffix in ("ppw", "wpl")),
        *((data, split, "wpl_cached") for data, split in (("camvid", "1_30"), ("voc_animals", "1_8"))),
        *((data, split, "wpl") for data, split in (("voc_animals", "1_8"), ("nyuv2", "1_16"))),
    ],
)
def test_twins_differ_by_weighting_and_detector_alone(data, split, suffix):
    differing = differing_keys(f"mean_teacher_{split}", f"mean_teacher_{suffix}_{split}", data=data)
    assert "WEIGHTING.ENABLED" in differing
    assert differing <= {"OUTPUT_DIR", "WEIGHTING.ENABLED", "RPPI.ENABLED", "MODEL.DETECTOR"}


@pytest.mark.parametrize(("data", "split"), [("voc_animals", "1_8"), ("nyuv2", "1_16")])
def test_what_a_host_has_to_beat_has_its_schedule(data, split):
    host, averaged, plain = (f"{name}_{split}" for name in ("mean_teacher", "supervised_ema", "supervised"))
    assert differing_keys(averaged, plain, data=data) == {"FRAMEWORK.NAME", "OUTPUT_DIR"}
    assert differing_keys(host, averaged, data=data) == {"FRAMEWORK.NAME", "OUTPUT_DIR", "DATASETS.UNLABELED"}


@pytest.mark.parametrize("host", ["mean_teacher", "unimatch"])
def test_the_official_weighting_is_that_of_the_published_code(host):
    official = f"{host}_wpl_official_1_30"
    keys = ("K", "WEIGHT_FORM", "NORM", "TOPK_RES", "UNLAB_VIEW", "LABELED_FROM", "MIN_COUNT")
    assert differing_keys(f"{host}_wpl_1_30", official) == {
        *("OUTPUT_DIR", "FRAMEWORK.ALPHA", "RPPI.BOX_SCORE"),
        *(f"WEIGHTING.{key}" for key in keys),
    }
    cfg = load_cfg(str(CONFIGS / "camvid" / f"{official}.yaml"))
    assert (cfg.FRAMEWORK.ALPHA, cfg.RPPI.BOX_SCORE, cfg.RPPI.CONF) == (1.0, 0.95, 0.95)
    assert [cfg.WEIGHTING[key] for key in keys] == [5, "plus_one", "weight_sum", "full", "strong", "student", 1]
