"""Checkpoints that were written when some keys and values of the config had other names."""

import numpy as np
import torch
import yaml
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.checkpoint import FrameworkCheckpointer, load_framework, load_model
from wpl_d2.evaluation.evaluator import evaluate
from wpl_d2.export import open_model
from wpl_d2.inference.predictor import Predictor


def test_a_checkpoint_with_old_keys_predicts_and_evaluates(tree, tmp_path, caplog):
    cfg = tree.cfg(*SMALL, "VIS_PERIOD", 7, "WEIGHTING.KIND", ("cosine",), "WEIGHTING.LABELED_FROM", "teacher")
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(tmp_path), str(tmp_path / "model_final.pth")
    FrameworkCheckpointer(build_framework(cfg), cfg).save("model_final")
    results, image = evaluate(cfg, load_framework(cfg)), np.zeros((50, 60, 3), np.uint8)
    expected = Predictor(open_model(cfg.MODEL.WEIGHTS), "cpu")([image])[0].labels

    content = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    config = yaml.safe_load(content["config"])
    config["SOLVER"]["PICTURE_PERIOD"] = config.pop("VIS_PERIOD")
    config["WEIGHTING"]["SIMILARITY"] = config["WEIGHTING"].pop("KIND")[0]
    config["WEIGHTING"]["LABELED_FROM"] = "labeler"
    config["WEIGHTING"]["GONE"] = 3
    torch.save({**content, "config": yaml.safe_dump(config)}, cfg.MODEL.WEIGHTS)

    caplog.clear()
    restored = load_model(cfg.MODEL.WEIGHTS)[1]["config"]
    weighting = restored.WEIGHTING
    assert (restored.VIS_PERIOD, weighting.KIND, weighting.LABELED_FROM) == (7, ("cosine",), "teacher")
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.endswith("has keys that this version does not know: WEIGHTING.GONE (3)")
    np.testing.assert_array_equal(Predictor(open_model(cfg.MODEL.WEIGHTS), "cpu")([image])[0].labels, expected)
    assert evaluate(cfg, load_framework(cfg)) == results
