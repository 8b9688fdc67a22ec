"""A weight of one's own, `WEIGHTING.KIND probability_margin`: the distance of the two highest probabilities."""

from torch import Tensor

from wpl_d2.weighting import SCORE_REGISTRY, Evidence, Score
from wpl_d2.weighting.evidence import Memory


@SCORE_REGISTRY.register()
class ProbabilityMargin(Score):
    """1 where the teacher thinks of one class alone, 0 where two are as probable."""

    kind = "probability_margin"

    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        """(B, H, W) float32 in [0, 1]."""
        first, second = evidence.logits.float().softmax(dim=1).topk(2, dim=1).values.unbind(dim=1)
        return first - second
