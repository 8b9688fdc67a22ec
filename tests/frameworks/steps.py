"""Steps of a framework on a batch of the fixture `tree`."""

import copy

import torch
from detectron2.utils.events import EventStorage
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader
from wpl_d2.structures import IGNORE


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


def fill_bank_for_one_class(framework, batch):
    """Push random embeddings of the class that most pixels are labeled as, which is returned; all else stays."""
    start = copy.deepcopy(framework.state_dict())
    losses_of(framework, batch)
    framework.load_state_dict(start)
    labels = framework.last_step.pseudo_labels.labels
    present = int(labels[labels != IGNORE].mode().values)
    framework.weigher.labeled_bank.push(torch.rand(20, 256), torch.full((20,), present))
    return present
