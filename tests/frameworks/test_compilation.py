import functools

import pytest
import torch
from helpers import AEL, AUGSEG, CORRMATCH, CPS, PCR, PREVMATCH, PSEUDOSEG, PSMT, SMALL, SMALL_FPN, U2PL, UNIMATCH
from steps import losses_of, make
from torch._dynamo.utils import counters

from wpl_d2 import build_framework
from wpl_d2.frameworks.compilation import check_compiler
from wpl_d2.utils.errors import InputError

HOSTS = {
    "Supervised": ["FRAMEWORK.NAME", "Supervised", "WEIGHTING.ENABLED", False],
    "MeanTeacher": [],
    "UniMatch": UNIMATCH,
    "AugSeg": AUGSEG,
    "CorrMatch": CORRMATCH,
    "CPS": CPS,
    "PCR": PCR,
    "PrevMatch": PREVMATCH,
    "PseudoSeg": PSEUDOSEG,
    "PSMT": PSMT,
    "AEL": AEL,
    "U2PL": [*U2PL, "FRAMEWORK.U2PL.UNRELIABLE", 0.0],  # a rounding may move a pixel over a percentile
}


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def check_two_steps(tree, opts):
    """Two steps of a compiled framework, which is returned, beside those of an eager one."""
    eager, batch = make(tree, *opts)
    compiled, _ = make(tree, *opts, "MODEL.COMPILE", True)
    compiled.load_state_dict(eager.state_dict())  # the same names
    for step in range(2):
        losses, gradients = [], []
        for framework in (eager, compiled):
            framework.iteration = step
            framework.zero_grad()
            losses.append(losses_of(framework, batch))
            sum(losses[-1].values()).backward()
            learned = (p.grad for p in framework.student.parameters() if p.requires_grad)
            gradients.append(torch.cat([gradient.flatten() for gradient in learned]))
            framework.after_step()
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)
        assert (gradients[1] - gradients[0]).norm() < 1e-3 * gradients[0].norm()
    for (name, value), other in zip(compiled.state_dict().items(), eager.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4, msg=name)
    return compiled, batch


@pytest.fixture
def no_compiler(monkeypatch):
    """Steps are captured as ever, but run without the code that a compiler makes of them, which takes minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("opts", [CPS, PREVMATCH, PSMT])
def test_all_models_of_a_framework_are_compiled(tree, opts):
    framework, _ = make(tree, *opts, "MODEL.COMPILE", True)
    parts = [part for name, part in framework.named_modules() if name.endswith(("backbone", "sem_seg_head"))]
    with framework.compiled():
        assert len(parts) > 2 and all("forward" in vars(part) for part in parts)
    assert not any("forward" in vars(part) for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_every_host_can_be_captured(tree, no_compiler, name):
    check_two_steps(tree, HOSTS[name])
    assert counters["stats"]["unique_graphs"] >= 2 and not counters["graph_break"]


@pytest.mark.slow
def test_compiled_steps_equal_eager_ones(tree):
    check_two_steps(tree, HOSTS["Supervised"])


@pytest.mark.slow
def test_evaluation_compiles_nothing(tree, no_compiler):
    framework, batch = check_two_steps(tree, HOSTS["MeanTeacher"])
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 4  # of student and teacher
    model = next(iter(framework.eval_models().values()))
    for size in (40, 72, 104):
        (output,) = model([{"image": batch["labeled"][0]["image"][:, :size, :size]}])
        assert output["sem_seg"].isfinite().all()
    framework.teacher_forward(batch["unlabeled"])
    assert counters["stats"]["unique_graphs"] == graphs


def test_without_a_compiler_one_error_says_so():
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",)}),
        pytest.raises(InputError, match=r"MODEL\.COMPILE: nothing can be compiled for cpu .*/nowhere/g.*; install"),
    ):
        check_compiler("cpu")


def test_a_detector_alone_has_nothing_to_compile(tree):
    with pytest.raises(InputError, match=r"MODEL\.COMPILE"):
        build_framework(tree.cfg(*SMALL, *SMALL_FPN, "MODEL.COMPILE", True))
