"""Nothing is switched off without a word: neither at the start of a training, nor at its end, nor over a resume."""

import json
import logging

import pytest
import torch
from helpers import CLASSES
from test_trainer import StopAfter, run, trainer_of

from wpl_d2.checkpoint import load_checkpoint
from wpl_d2.engine import Trainer

UNREACHABLE = ["FRAMEWORK.THRESHOLD", 0.9999, "SOLVER.MAX_ITER", 4, "WEIGHTING.MIN_COUNT", 1]


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.startswith("wpl_d2")
    ]


def test_a_training_whose_pseudo_labels_taught_nothing_ends_by_saying_so(tree, tmp_path, caplog):
    run(tree, tmp_path / "out", *UNREACHABLE)
    assert warnings_of(caplog) == [
        "no pseudo-label ever reached FRAMEWORK.THRESHOLD 0.9999: the unlabeled images taught nothing"
    ]
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    assert lines[-1]["pseudo/selected"] == 0 < lines[-1]["pseudo/weighted"] <= 1


def test_a_training_that_works_ends_with_what_its_pseudo_labels_came_to(tree, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = run(tree, tmp_path / "out", "SOLVER.MAX_ITER", 2)
    assert warnings_of(caplog) == []
    sums = trainer.averages.state_dict()["sums"]
    shares = [f"{50 * sums[f'pseudo/{name}']:.2f} %" for name in ("selected", "weighted", "reliable")]
    text = (
        f"2 steps: {shares[0]} were selected to train, {shares[1]} had a weight that is not neutral, {shares[2]} were"
    )
    assert text in caplog.text
    assert 0 < sums["pseudo/selected"] <= 2


def test_a_burn_in_to_the_end_is_said_at_the_start_and_at_the_end(tree, tmp_path, caplog):
    trainer = trainer_of(tree, tmp_path / "out", "FRAMEWORK.BURN_IN", 2, "SOLVER.MAX_ITER", 2)
    start = warnings_of(caplog)
    trainer.train()
    assert [text[:59] for text in start] == ["FRAMEWORK.BURN_IN: 2 of SOLVER.MAX_ITER 2 steps are supervi"]
    assert warnings_of(caplog)[1:] == [
        "FRAMEWORK.BURN_IN: 2, and no step came to the unlabeled images: they taught nothing"
    ]


SHORT = ["SOLVER.MAX_ITER", 4, "FRAMEWORK.BURN_IN", 1]


def stop_after_two_steps(tree, output):
    stopped = trainer_of(tree, output, *SHORT)
    StopAfter(stopped, 2)
    with pytest.raises(SystemExit):
        stopped.train()


def test_a_resumed_run_counts_all_its_steps(tree, tmp_path, caplog):
    straight = run(tree, tmp_path / "straight", *SHORT).averages.state_dict()
    caplog.clear()
    stop_after_two_steps(tree, tmp_path / "out")
    assert "Pseudo-labels of" not in caplog.text
    resumed = run(tree, tmp_path / "out", *SHORT, resume=True).averages.state_dict()
    assert resumed == straight and straight["steps"] == 3
    saved = load_checkpoint(str(tmp_path / "out" / "model_final.pth"))["trainer"]["hooks"]["PseudoLabelAverages"]
    assert saved == straight and {type(value) for value in saved["sums"].values()} == {float}


def test_what_trained_before_a_resume_is_not_forgotten(tree, tmp_path, caplog):
    stop_after_two_steps(tree, tmp_path / "out")
    run(tree, tmp_path / "out", *SHORT, *UNREACHABLE, resume=True)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(("name", "steps"), [("Tally", 3), ("", 2)])
def test_checkpoints_of_earlier_versions_are_resumed(tree, tmp_path, name, steps):
    """With the hook's old name, and from before there was such a hook."""
    stop_after_two_steps(tree, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("model_*.pth")
    content = torch.load(path, weights_only=True)
    content["trainer"]["hooks"][name] = content["trainer"]["hooks"].pop("PseudoLabelAverages")
    torch.save(content, path)
    assert run(tree, tmp_path / "out", *SHORT, resume=True).averages.state_dict()["steps"] == steps


def rows_of(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_the_metrics_tell_what_became_of_each_class(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "LOG_PERIOD", 2)
    seen = []
    trainer = trainer_of(tree, tmp_path / "out", *SHORT)

    def keep():
        if (pseudo := trainer.framework.last_step.pseudo_labels) is not None:
            seen.append(pseudo)

    trainer.framework.after_step = keep
    trainer.train()
    rows = {row["iteration"]: row for row in rows_of(tmp_path / "out")}
    assert len(seen) == 3
    for iteration, steps in ((1, seen[:1]), (3, seen[1:])):
        labels, confidence, weight, valid = (
            torch.cat([getattr(step, name).flatten() for step in steps])
            for name in ("labels", "confidence", "weight", "valid")
        )
        for number, name in enumerate(CLASSES):
            own = labels == number
            assert rows[iteration][f"pseudo/share-{name}"] == pytest.approx(float(own.sum() / valid.sum()))
            if own.any():
                selected = (confidence[own] >= trainer.framework.threshold).float().mean()
                assert rows[iteration][f"pseudo/selected-{name}"] == pytest.approx(float(selected))
                assert rows[iteration][f"pseudo/weight-{name}"] == pytest.approx(float(weight[own].mean()))
            else:
                assert f"pseudo/weight-{name}" not in rows[iteration]


def test_a_resumed_run_counts_its_classes_over_all_steps(tree, tmp_path):
    run(tree, tmp_path / "straight", *SHORT)
    stop_after_two_steps(tree, tmp_path / "out")
    run(tree, tmp_path / "out", *SHORT, resume=True)
    straight, resumed = (
        {key: value for key, value in rows_of(tmp_path / name)[-1].items() if key.startswith("pseudo/share-")}
        for name in ("straight", "out")
    )
    assert resumed == straight and straight.keys() == {f"pseudo/share-{name}" for name in CLASSES}
