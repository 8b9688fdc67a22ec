import torch

from wpl_d2.frameworks.random_samples import uniform


def test_numbers_are_those_of_the_cpu_generator():
    torch.manual_seed(3)
    found = uniform(2, 3, device=torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(2, 3))
