"""A weight that is learned: the probability that a pseudo-label is right, given several scores (WEIGHTING.KIND)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..structures import IGNORE
from ..utils.comm import all_gather_rows
from ..utils.errors import InputError
from .components import on_cells
from .evidence import Evidence, Memory
from .scores import SCORE_REGISTRY, Score, ScoreOptions, build_scores

_FLOOR = 1e-4
"""Scores nearer to 0 or 1 than this are taken as this, so that their log-odds are finite."""
_RIDGE = 1e-3
"""Factor of half the squared length of the coefficients, beside the mean negative log-likelihood."""
_NEWTON_STEPS = 20


@SCORE_REGISTRY.register()
class Calibrated(Score):
    """The probability that the label is right, by a logistic model of the log-odds of WEIGHTING.CALIBRATED.SCORES.

    The model is fitted on labeled images that train nothing meanwhile (`wpl_d2.data.held_out`), whose labels by the
    pseudo-labeler are compared with their masks. Until its first fit the score is 1.

    Attributes:
        scores: the constituents, by kind.
        coefficients: (S + 1,) float64, of the scores and a constant.
        fitted: () bool.
    """

    kind = "calibrated"
    learns = True
    coefficients: Tensor
    fitted: Tensor

    def __init__(self, options: ScoreOptions) -> None:
        """Build the constituents.

        Raises:
            InputError: one is unknown, named twice, or learns itself.
        """
        super().__init__(options)
        key = "WEIGHTING.CALIBRATED.SCORES"
        scores = build_scores(options.constituents, options, key)
        for score in scores:
            if score.learns:
                raise InputError(f"{key}: {score.kind} learns in training, and cannot be learned from; leave it out")
        self.scores = nn.ModuleList(scores)
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.register_buffer("coefficients", torch.zeros(len(scores) + 1, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))
        self._staged: list[Tensor] = []

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        *factors, constant = self.coefficients.float()
        score = torch.stack([f * x for f, x in zip(factors, self._log_odds(evidence, memory), strict=True)]).sum(dim=0)
        return torch.where(self.fitted, (score + constant).sigmoid(), 1.0)

    @torch.no_grad()
    def stage(self, evidence: Evidence, memory: Memory, target: Tensor, neutral: Tensor) -> None:
        """Stage the pixels of held-out images for the next fit, one of each cell of `on_cells`.

        Args:
            evidence: of the images.
            memory: the weigher's banks.
            target: (B, H, W) int64, the true labels, `IGNORE` where there is none.
            neutral: (B, H, W) bool, the pixels that are not weighed.
        """
        right, counted = evidence.pseudo.labels == target, (target != IGNORE) & ~neutral
        maps = [*self._log_odds(evidence, memory), right.float(), counted.float()]
        self._staged.append(torch.stack([on_cells(values).flatten() for values in maps], dim=1))

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        """Fit the model to what all ranks staged, equally on each; without a pixel that counts it stays as it is."""
        if self._staged:
            rows = all_gather_rows(torch.cat(self._staged)).double()
            inputs, right, counted = rows[:, :-2], rows[:, -2], rows[:, -1]
            some = counted.any()
            fit = fit_logistic(inputs, right, counted)
            self.coefficients.copy_(torch.where(some, fit, self.coefficients))
            self.fitted |= some
        self._staged = []

    def _log_odds(self, evidence: Evidence, memory: Memory) -> list[Tensor]:
        return [score(evidence, memory).logit(eps=_FLOOR) for score in self.scores]


def fit_logistic(inputs: Tensor, right: Tensor, counted: Tensor) -> Tensor:
    """The coefficients that minimize the mean negative log-likelihood and a ridge on standardized inputs.

    Newton's method from zero, by the best of several lengths of each step, so that no step makes it worse.

    Args:
        inputs: (N, S) float64, finite.
        right: (N,) float64, 1 or 0.
        counted: (N,) float64, 1 for rows that count, else 0.

    Returns:
        (S + 1,) float64, for the inputs as they are; the last is the constant.
    """
    share = counted / counted.sum().clamp(min=1)
    mean = share @ inputs
    spread = (share @ (inputs - mean).square()).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    rows = torch.cat([(inputs - mean) / spread, torch.ones_like(right).unsqueeze(1)], dim=1)
    ridge = _RIDGE * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    lengths = 0.5 ** torch.arange(8.0, dtype=rows.dtype, device=rows.device)
    lengths[-1] = 0.0

    def losses(candidates: Tensor) -> Tensor:
        margins = (rows @ candidates.T) * (1 - 2 * right).unsqueeze(1)
        return share @ nn.functional.softplus(margins) + _RIDGE / 2 * candidates.square().sum(dim=1)

    best = torch.zeros_like(rows[0])
    for _ in range(_NEWTON_STEPS):
        chance = (rows @ best).sigmoid()
        gradient = (share * (chance - right)) @ rows + _RIDGE * best
        curvature = (share * chance * (1 - chance) * rows.T) @ rows + ridge
        candidates = best - lengths.unsqueeze(1) * torch.linalg.solve(curvature, gradient)
        best = candidates[losses(candidates).argmin()]
    factors = best[:-1] / spread
    return torch.cat([factors, best[-1:] - factors @ mean])
