import numpy as np
import pytest
import torch
from helpers import SMALL

from wpl_d2.cli import main
from wpl_d2.engine.lr_finder import LRCurve, LRFinder


def curve(loss_at, steps=100):
    rates = np.geomspace(1e-5, 1.0, steps).tolist()
    return LRCurve(rates, [loss_at(np.log10(rate)) for rate in rates])


def test_the_suggestion_is_where_the_loss_falls_fastest():
    found = curve(lambda power: 2 - np.tanh(2 * (power + 3)) + 20 * max(0, power + 1))
    assert found.suggestion == pytest.approx(1e-3, rel=0.15)
    assert found.diverged
    assert not curve(lambda power: 2 - power).diverged


def test_a_search_ends_where_the_loss_diverges(tree, tmp_path, capsys):
    cfg = tree.cfg(*SMALL, "WEIGHTING.ENABLED", False, "OUTPUT_DIR", str(tmp_path / "out"))
    finder = LRFinder(cfg, 1e-3, 1e2, 6)
    forward = finder.framework.forward
    infinite = torch.tensor(float("inf"))
    finder.framework.forward = lambda batch: forward(batch) | ({"loss_unsup": infinite} if finder.iter == 4 else {})
    finder.resume_or_load(False)
    finder.train()
    assert 3 <= len(finder.curve.losses) <= 4
    assert np.isfinite(finder.curve.losses).all()


def test_a_search_raises_all_rates_and_leaves_no_model(tree, tmp_path):
    cfg = tree.cfg(*SMALL, "WEIGHTING.ENABLED", False, "SOLVER.BASE_LR", 0.02, "OUTPUT_DIR", str(tmp_path / "out"))
    finder = LRFinder(cfg, 1e-4, 1e-2, 3)
    step, rates = finder.run_step, []

    def watched():
        rates.append([group["lr"] for group in finder.optimizer.param_groups])
        step()

    finder.run_step = watched
    finder.resume_or_load(False)
    finder.train()
    assert finder.curve.rates == pytest.approx([1e-4, 1e-3, 1e-2])
    assert [min(row) for row in rates] == pytest.approx(finder.curve.rates)
    assert all(max(row) == pytest.approx(10 * min(row)) for row in rates)
    assert not list((tmp_path / "out").glob("*.pth")) and not (tmp_path / "out/metrics.json").exists()


def test_the_command_prints_a_number_and_draws_a_picture(tree, tmp_path, capsys):
    cfg = tree.cfg(*SMALL, "OUTPUT_DIR", str(tmp_path / "out"))
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.DETECTOR.CLASSES = 0, ()
    (tree.root / "run.yaml").write_text(cfg.dump())
    words = ["find-lr", str(tree.root / "run.yaml"), "--lowest", "1e-4", "--highest", "1e-2", "--steps"]
    assert main([*words, "4"]) == 0
    name, value = capsys.readouterr().out.splitlines()[-1].split()
    assert name == "SOLVER.BASE_LR" and 1e-4 <= float(value) <= 1e-2
    assert (tmp_path / "out/lr_finder/lr_finder.png").stat().st_size > 5000
    for wrong, message in ((["2"], "--steps: 2 make no curve"), (["4", "--lowest", "1"], "--lowest: 1 is not above 0")):
        with pytest.raises(SystemExit):
            main([*words, *wrong])
        assert message in capsys.readouterr().err
