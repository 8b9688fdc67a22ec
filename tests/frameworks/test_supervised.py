import shutil

import pytest
import torch
from detectron2.utils.events import EventStorage
from helpers import SMALL, SMALL_DETECTOR

from wpl_d2 import build_framework
from wpl_d2.checkpoint import load_checkpoint, load_model
from wpl_d2.data import build_train_loader
from wpl_d2.engine import Trainer
from wpl_d2.modeling import ema_decay
from wpl_d2.utils.errors import InputError

PLAIN = ["WEIGHTING.ENABLED", False]
EMA = [*PLAIN, "FRAMEWORK.NAME", "SupervisedEMA"]
RUN = [
    *("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.BASE_LR", 0.05, "DATASETS.UNLABELED", ()),
    *("FRAMEWORK.BURN_IN", 1, "FRAMEWORK.EMA_DECAY", 0.6),
]


def framework_of(tree, *opts):
    torch.manual_seed(0)
    return build_framework(tree.cfg(*SMALL, *opts))


def train(tree, output, *opts, resume=False):
    cfg = tree.cfg(*SMALL, *RUN, *opts, "OUTPUT_DIR", str(output))
    output.mkdir(exist_ok=True)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def weights(output, part=""):
    """The final weights whose names start with `part`, without it."""
    model = load_checkpoint(str(output / "model_final.pth"))["model"]
    return {key.removeprefix(part): value for key, value in model.items() if key.startswith(part)}


def differing(ours, theirs):
    assert ours.keys() == theirs.keys()
    return [key for key in ours if not torch.equal(ours[key], theirs[key])]


def disturb(model, seed):
    """Stand in for an optimizer's step."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(torch.randn(value.shape) if value.is_floating_point() else 1)


@pytest.mark.parametrize(("name", "models"), [("Supervised", ["student"]), ("SupervisedEMA", ["teacher", "student"])])
def test_unlabeled_images_play_no_part(tree, name, models):
    cfg = tree.cfg(*SMALL, "FRAMEWORK.NAME", name, *PLAIN)
    framework, batch = build_framework(cfg), next(build_train_loader(cfg))
    state = {key: value.clone() for key, value in framework.state_dict().items()}
    with EventStorage():
        with_them = framework(batch)
        framework.load_state_dict(state)
        without = framework({**batch, "unlabeled": []})
    assert with_them.keys() == {"loss_sem_seg"}
    assert torch.equal(with_them["loss_sem_seg"], without["loss_sem_seg"])
    assert list(framework.eval_models()) == models


@pytest.mark.parametrize(
    "schedule",
    [
        [],
        ["FRAMEWORK.BURN_IN", 3],
        ["FRAMEWORK.BURN_IN", 2, "FRAMEWORK.EMA_COPY_STEPS", 2, "FRAMEWORK.EMA_DECAY", 0.6],
        ["FRAMEWORK.EMA_BUFFERS", "copy", "FRAMEWORK.EMA_DECAY", 0.6],
        ["FRAMEWORK.EMA_DECAY", 0.0],
        ["FRAMEWORK.EMA_DECAY", 1.0, "FRAMEWORK.BURN_IN", 9],
    ],
)
def test_the_ema_moves_as_the_mean_teachers_of_the_same_schedule(tree, schedule):
    ours, host = (framework_of(tree, *PLAIN, "FRAMEWORK.NAME", name, *schedule) for name in (EMA[-1], "MeanTeacher"))
    for iteration in range(7):
        for framework in (ours, host):
            framework.iteration = iteration
            disturb(framework.student, iteration)
            framework.after_step()
        assert differing(ours.teacher.state_dict(), host.teacher.state_dict()) == []
    assert not any(p.requires_grad for p in ours.teacher.parameters())


def test_the_average_is_that_of_the_formula(tree):
    framework = framework_of(tree, *EMA, "FRAMEWORK.BURN_IN", 2, "FRAMEWORK.EMA_DECAY", 0.6)
    name = "sem_seg_head.predictor.weight"
    expected = framework.student.get_parameter(name).clone()
    for iteration in range(6):
        framework.iteration = iteration
        disturb(framework.student, iteration)
        framework.after_step()
        student = framework.student.get_parameter(name)
        decay = ema_decay(iteration - 2, 0.6) if iteration >= 2 else 0.0
        expected = decay * expected + (1 - decay) * student
        torch.testing.assert_close(framework.teacher.get_parameter(name), expected)
    assert not torch.allclose(expected, student)


def test_its_student_is_the_supervised_one_and_its_teacher_what_is_left(tree, tmp_path):
    """Without unlabeled images; a resume is exact, and the teacher is what is evaluated and loaded."""
    train(tree, tmp_path / "plain", *PLAIN, "FRAMEWORK.NAME", "Supervised")
    trainer = train(tree, tmp_path / "straight", *EMA, "TEST.EVAL_PERIOD", 4, "TEST.STUDENT", True)
    assert differing(weights(tmp_path / "straight", "student."), weights(tmp_path / "plain", "student.")) == []
    teacher = weights(tmp_path / "straight", "teacher.")
    assert "sem_seg_head.predictor.weight" in differing(teacher, weights(tmp_path / "straight", "student."))
    assert trainer.last_results.keys() == {"sem_seg", "student"}
    assert differing(load_model(str(tmp_path / "straight/model_final.pth"))[0].state_dict(), teacher) == []

    (tmp_path / "stopped").mkdir()
    shutil.copy(tmp_path / "straight/model_0000001.pth", tmp_path / "stopped")
    (tmp_path / "stopped/last_checkpoint").write_text("model_0000001.pth")
    assert train(tree, tmp_path / "stopped", *EMA, resume=True).start_iter == 2
    assert differing(weights(tmp_path / "straight"), weights(tmp_path / "stopped")) == []


def test_a_detector_of_the_student_is_averaged_too(tree):
    framework = framework_of(tree, *SMALL_DETECTOR, *EMA, "RPPI.ENABLED", False, "FRAMEWORK.EMA_DECAY", 0.0)
    assert framework.teacher.has_detector
    disturb(framework.student, 1)
    framework.after_step()
    assert differing(framework.teacher.state_dict(), framework.student.state_dict()) == []


def test_statistics_that_would_never_move_are_refused(tree):
    with pytest.raises(InputError, match=r"FRAMEWORK\.EMA_BUFFERS: none, but this teacher's BN statistics"):
        framework_of(tree, *EMA, "FRAMEWORK.EMA_BUFFERS", "none")
