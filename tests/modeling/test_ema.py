import pytest
import torch
from torch import nn

from wpl_d2.modeling import copy_model, ema_decay, update_ema


def models():
    torch.manual_seed(0)
    teacher, student = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    student(torch.randn(2, 3, 8, 8) + 3)
    return teacher, student


@pytest.mark.parametrize("buffers", ["ema", "copy", "none"])
def test_update_is_the_formula(buffers):
    teacher, student = models()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    update_ema(teacher, student, 0.9, buffers)
    parameters = dict(teacher.named_parameters())
    for key, value in teacher.state_dict().items():
        old, new = before[key], student.state_dict()[key]
        if key in parameters or (buffers == "ema" and value.is_floating_point()):
            torch.testing.assert_close(value, 0.9 * old + 0.1 * new)
        else:
            assert torch.equal(value, old if buffers == "none" else new), key
    assert all(value.dtype == before[key].dtype for key, value in teacher.state_dict().items())


def test_decay_zero_and_copy_are_exact():
    for copy in (copy_model, lambda teacher, student: update_ema(teacher, student, 0.0)):
        teacher, student = models()
        copy(teacher, student)
        for key, value in teacher.state_dict().items():
            assert torch.equal(value, student.state_dict()[key])
            assert value.data_ptr() != student.state_dict()[key].data_ptr()


def test_another_architecture_is_refused():
    with pytest.raises(ValueError):
        update_ema(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)


def test_decay_rises_to_its_bound():
    assert ema_decay(0, 0.99) == 0.0
    assert ema_decay(1, 0.99) == 0.5
    assert ema_decay(9, 0.99) == pytest.approx(0.9)
    assert ema_decay(10_000, 0.99) == 0.99
