"""The contrastive loss of pixels' representations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """How badly anchors tell the positive of their class from their negatives (U2PL, eq. 4).

    The mean over a class's anchors of -log(exp(a+ / t) / (exp(a+ / t) + sum of exp(a- / t))), where a+ and a- are the
    cosines between an anchor and its positive and negatives.

    Args:
        anchors: (C, A, D) float, A anchors of each class; they alone get a gradient.
        positives: (C, D) float, one a class.
        negatives: (C, A, M, D) float of unit length or zero, M for each anchor.
        temperature: t.

    Returns:
        (C,) float32.
    """
    # Autocast would round the cosines to 8 bits.
    with torch.autocast(anchors.device.type, enabled=False):
        anchors = F.normalize(anchors.float(), dim=-1)
        positives = F.normalize(positives.detach().float(), dim=-1)
        near = torch.einsum("cad,cd->ca", anchors, positives) / temperature
        far = torch.einsum("cad,camd->cam", anchors, negatives.detach().float()) / temperature
        return (torch.cat([near.unsqueeze(-1), far], dim=-1).logsumexp(dim=-1) - near).mean(dim=-1)
