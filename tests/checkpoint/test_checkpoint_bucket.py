"""Checkpoints that are copied to a bucket, for machines that have none."""

import logging
from pathlib import PurePath

import pytest
import torch

from wpl_d2.checkpoint import FrameworkCheckpointer
from wpl_d2.utils.buckets import Bucket
from wpl_d2.utils.errors import InputError


class Loop:
    """As a trainer: it knows its step."""

    iteration = -1

    def state_dict(self):
        return {"iteration": self.iteration}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


def checkpointer_of(tree, folder, url):
    framework, loop = torch.nn.ModuleDict({"student": torch.nn.Linear(2, 2)}), Loop()
    framework.student = framework["student"]
    cfg = tree.cfg("OUTPUT_DIR", str(folder), "SOLVER.CHECKPOINT_BUCKET", url)
    folder.mkdir(exist_ok=True)
    return FrameworkCheckpointer(framework, cfg, trainer=loop), loop, framework


def test_a_new_machine_goes_on_from_the_bucket(bucket, tree, tmp_path):
    url = f"{bucket}/run"
    first, loop, framework = checkpointer_of(tree, tmp_path / "first", url)
    for loop.iteration in (1, 3):
        first.save(f"model_{loop.iteration:07d}")
    first.save("model_best", resumable=False)
    first.remove(tmp_path / "first/model_0000001.pth")
    names = {"last_checkpoint", "model_0000003.pth", "model_best.pth"}
    assert {str(path) for path in Bucket(url).files()} == names
    second, there, copy = checkpointer_of(tree, tmp_path / "second", url)
    assert second.resume() and there.iteration == 3
    assert torch.equal(copy.student.weight, framework.student.weight)
    # What is on the disk comes first: it may be newer.
    first.unlock()
    loop.iteration = 5
    first.save("model_0000005")
    again, here, _ = checkpointer_of(tree, tmp_path / "second", url)
    assert again.resume() and here.iteration == 3
    # A run that begins anew is not taken for the old one.
    again.start_new_run()
    third, _, _ = checkpointer_of(tree, tmp_path / "third", url)
    assert not third.resume()


def test_a_checkpoint_that_could_not_be_copied_leaves_the_one_before_in_the_bucket(bucket, tree, tmp_path, monkeypatch):
    url = f"{bucket}/cut"
    first, loop, _ = checkpointer_of(tree, tmp_path / "first", url)
    loop.iteration = 1
    first.save("model_0000001")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", refuse)
        loop.iteration = 3
        first.save("model_0000003")
    first.remove(tmp_path / "first/model_0000001.pth")
    second, there, _ = checkpointer_of(tree, tmp_path / "second", url)
    assert second.resume() and there.iteration == 1


def refuse(self, folder, paths):
    raise InputError("the network is gone")


def test_what_the_bucket_should_have_and_has_not_is_named(bucket, tree, tmp_path):
    url = f"{bucket}/lost"
    first, _, _ = checkpointer_of(tree, tmp_path / "first", url)
    first.save("model_0000001")
    Bucket(url).remove([PurePath("model_0000001.pth")])
    second, _, _ = checkpointer_of(tree, tmp_path / "second", url)
    with pytest.raises(InputError, match=r"CHECKPOINT_BUCKET: model_0000001\.pth is not in "):
        second.resume()
    assert [file.name for file in (tmp_path / "second").glob("*.p*")] == []


def test_a_bucket_that_is_gone_does_not_end_the_training(bucket, tree, tmp_path, caplog):
    checkpointer, loop, _ = checkpointer_of(tree, tmp_path / "run", "s3://nowhere/run")
    loop.iteration = 1
    with caplog.at_level(logging.WARNING):
        checkpointer.save("model_0000001")
    assert "SOLVER.CHECKPOINT_BUCKET: s3://nowhere/run: " in caplog.text
    assert checkpointer.resume()
