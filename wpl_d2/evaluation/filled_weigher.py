"""A weigher for a training that had none, to judge by what its pseudo-labels could have been weighed."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from ..data import build_labeled_loader
from ..frameworks import Framework
from ..weighting import PixelWeigher


@torch.no_grad()
def filled_weigher(cfg: Any, framework: Framework) -> PixelWeigher:
    """A weigher whose bank has the labeler's embeddings of labeled pixels: of as many views as fill it.

    Args:
        cfg: a complete config; WEIGHTING.ENABLED does not matter.
        framework: trained; its labeler looks at the labeled images.
    """
    weigher = PixelWeigher.from_config(cfg).to(framework.device)
    views = -(-cfg.WEIGHTING.BANK_SIZE // cfg.WEIGHTING.PUSH_PER_IMAGE)
    for items in islice(build_labeled_loader(cfg), -(-views // cfg.SOLVER.IMS_PER_BATCH)):
        _, output = framework.look(items)
        weigher.stage_labeled(output.embedding, output.logits, framework.stack(items, "sem_seg"))
        weigher.commit()
    return weigher
