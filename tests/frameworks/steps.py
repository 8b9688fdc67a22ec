"""Steps of a framework on a batch of the fixture `tree`."""

import torch
from detectron2.utils.events import EventStorage
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader


def make(tree, *opts):
    cfg = tree.cfg(*SMALL, *opts)
    torch.manual_seed(0)
    return build_framework(cfg), next(build_train_loader(cfg))


def losses_of(framework, batch):
    torch.manual_seed(5)
    with EventStorage():
        return framework(batch)


def fill_bank(framework, batch, steps=3):
    for _ in range(steps):
        losses_of(framework, batch)
        framework.after_step()
