import torch
from detectron2.utils.events import EventStorage
from helpers import SMALL

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader


def test_unlabeled_images_play_no_part(tree):
    cfg = tree.cfg(*SMALL, "FRAMEWORK.NAME", "Supervised", "WEIGHTING.ENABLED", False)
    framework, batch = build_framework(cfg), next(build_train_loader(cfg))
    state = {key: value.clone() for key, value in framework.state_dict().items()}
    with EventStorage():
        with_them = framework(batch)
        framework.load_state_dict(state)
        without = framework({**batch, "unlabeled": []})
    assert with_them.keys() == {"loss_sem_seg"}
    assert torch.equal(with_them["loss_sem_seg"], without["loss_sem_seg"])
    assert list(framework.deployables()) == ["student"]
