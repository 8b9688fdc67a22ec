from pathlib import Path

import pytest
import torch
from helpers import SMALL, SMALL_DETECTOR, make_tree

from wpl_d2.engine import Trainer
from wpl_d2.export import FORMATS, export_model


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a training of one step, whose teacher and student were then made to differ visibly."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WPL_D2_CACHE", str(folder / "cache"))
        cfg = make_tree(folder).cfg(*SMALL, *SMALL_DETECTOR, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(folder))
        cfg.freeze()
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        trainer.train()
    for model in (trainer.framework.teacher.eval(), trainer.framework.student.eval()):
        predictor = model.sem_seg_head.predictor
        torch.nn.init.normal_(predictor.weight)
        with torch.no_grad():  # so that no class wins everywhere
            predictor.bias -= model.segment(torch.rand(1, 3, 50, 60) * 255).mean(dim=(0, 2, 3))
    trainer.checkpointer.save("model_final")
    return folder


@pytest.fixture(scope="session")
def checkpoint(trained):
    return str(trained / "model_final.pth")


@pytest.fixture(scope="session")
def images(trained):
    return trained / "set" / "images"


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """The checkpoint in a format, exported once."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name) -> Path:
        if name not in made:
            path = folder / f"model{FORMATS[name].suffix}"
            made[name] = path, export_model(checkpoint, name, path, boxes=FORMATS[name].can_find)
        return made[name][0]

    return export
