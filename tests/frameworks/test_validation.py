"""Batch normalization of ASPP's pooling, which has one value an image: told at the start where a batch is too small."""

import pytest
from helpers import AEL, AUGSEG, CORRMATCH, U2PL, UNIMATCH, UNIMATCH_V2
from steps import losses_of, make

from wpl_d2.frameworks.validation import check_pool_norm, local_batch
from wpl_d2.utils.errors import InputError

POOL_NORM = ["MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", True, "WEIGHTING.ENABLED", False]
GN = ["MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [64]]
SUPERVISED = ["FRAMEWORK.NAME", "Supervised"]


def images(labeled, unlabeled):
    return ["SOLVER.IMS_PER_BATCH", labeled, "SOLVER.UNLABELED_IMS_PER_BATCH", unlabeled]


@pytest.mark.parametrize(
    "opts",
    [
        [*SUPERVISED, *images(1, 4)],
        [*images(1, 4), "FRAMEWORK.BURN_IN", 1],
        [*images(1, 4), "DATASETS.UNLABELED", ()],
        [*UNIMATCH, *images(1, 2), "FRAMEWORK.BURN_IN", 3],
        [*AEL, *images(2, 1)],
        [*AEL, *images(1, 2)],
        [*CORRMATCH, *images(2, 1)],
        [*UNIMATCH_V2, *images(1, 2)],
        [*SUPERVISED, *images(1, 1), "MODEL.SEM_SEG_HEAD.NORM", "BN"],
        [*SUPERVISED, *images(1, 1), "MODEL.SEM_SEG_HEAD.NORM", "naiveSyncBN"],
    ],
)
def test_a_batch_of_one_image_is_refused_at_the_start(tree, opts):
    with pytest.raises(InputError, match=r"^MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM: .* one image; give .*NORM GN or this"):
        make(tree, *POOL_NORM, *opts)


@pytest.mark.parametrize(
    "opts",
    [
        images(1, 1),
        [*UNIMATCH, *images(1, 1)],
        [*AUGSEG, *images(1, 1)],
        [*U2PL, *images(1, 1)],
        [*AEL, *images(2, 2)],
        [*CORRMATCH, *images(1, 2)],
        [*UNIMATCH_V2, *images(2, 1)],
        [*SUPERVISED, *images(2, 1)],
        [*images(2, 1), "FRAMEWORK.BURN_IN", 1],
        [*SUPERVISED, *images(1, 1), *GN],
        [*AEL, *images(1, 1), *GN],
        [*SUPERVISED, *images(1, 1), "MODEL.SEM_SEG_HEAD.NORM", "FrozenBN"],
        [*SUPERVISED, *images(1, 1), "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", False],
    ],
)
def test_what_is_not_refused_trains(tree, opts):
    framework, batch = make(tree, *POOL_NORM, *opts)
    for step in range(2):
        framework.iteration = step
        losses = losses_of(framework, batch)
        sum(losses.values()).backward()
        framework.after_step()
    assert all(p.grad.isfinite().all() for p in framework.student.parameters() if p.grad is not None)


@pytest.mark.parametrize(("norm", "refused"), [("auto", False), ("naiveSyncBN", False), ("BN", True), ("GN", False)])
def test_what_processes_share_counts_together(tree, monkeypatch, norm, refused):
    cfg = tree.cfg(*POOL_NORM, *SUPERVISED, *images(2, 2), "MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NORM", norm)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    assert local_batch(cfg) == (1, 1)
    if not refused:
        return check_pool_norm(cfg, 1)
    with pytest.raises(InputError, match="BN of ASPP's pooling"):
        check_pool_norm(cfg, 1)
