"""Two models that predict together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from ..structures import SemSegOutput
from .meta_arch import UnifiedSegDet

_SECOND = "second."


class ModelPair(UnifiedSegDet):
    """Two models of one architecture as one, whose logits are the mean of theirs.

    All else is the first one's: embedding, representation, detections, and every attribute that is not defined here.
    """

    def __init__(self, first: UnifiedSegDet, second: UnifiedSegDet) -> None:
        nn.Module.__init__(self)
        self.first = first
        self.second = second

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("first"), name)

    @override
    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """The first one's feature maps under their names, and the second one's under these with a prefix."""
        second = {_SECOND + name: maps for name, maps in self.second.encode(images).items()}
        return self.first.encode(images) | second

    @override
    def decode(
        self,
        features: dict[str, Tensor],
        size: Sequence[int],
        perturb: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> SemSegOutput:
        features = features if perturb is None else perturb(features)
        second = {name[len(_SECOND) :]: maps for name, maps in features.items() if name.startswith(_SECOND)}
        output = self.first.decode(features, size)
        return output._replace(logits=(output.logits + self.second.decode(second, size).logits) / 2)
