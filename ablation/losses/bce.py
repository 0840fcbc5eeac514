"""Binary cross-entropy, the baseline, with the weight of positives that makes it a tuned one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets, cross_entropy, signed_logit


@dataclass(frozen=True)
class BCE(ConfidenceLoss):
    """L(z, y) = w_y (-log sigmoid((2 y - 1) z)), with w_1 = pos_weight and w_0 = 1.

    Attributes:
        pos_weight: > 0, or null for plain BCE (the same as 1). Focal loss has two settings to
            tune; a BCE that is compared with it deserves one as well.
    """

    pos_weight: float | None = None

    def __post_init__(self) -> None:
        weight = self.pos_weight
        valid = weight is None or 0 < weight < float("inf")
        require(valid, "pos_weight", weight, "> 0 and finite, or null")

    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        loss = cross_entropy(signed_logit(objectness_logits, targets.objectness))
        if self.pos_weight is None:
            return loss
        return loss * (1 + (self.pos_weight - 1) * targets.objectness)
