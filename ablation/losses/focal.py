"""Focal loss on objectness."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets, cross_entropy, signed_logit


@dataclass(frozen=True)
class Focal(ConfidenceLoss):
    """L(z, y) = a_y (1 - p_y)^gamma (-log p_y), p_y = sigmoid((2 y - 1) z), a_1 = alpha, a_0 = 1 - alpha.

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 5.
    alpha weights POSITIVES, so the paper's 0.25 weighs them down.

    (1 - p_y)^gamma is computed as exp(gamma log sigmoid(-s)). The power of a probability has an
    infinite derivative at 0 for 0 < gamma < 1; this form keeps value and gradient finite at every
    logit, and at gamma = 0 it is exactly 1, which makes alpha=null, gamma=0 equal to BCE bit for bit.

    Attributes:
        alpha: in [0, 1], or null for no weighting at all (which is not the same as 0.5: that halves
            the loss).
        gamma: >= 0, the focusing parameter; 0 switches focusing off.
    """

    alpha: float | None = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(self.alpha is None or 0 <= self.alpha <= 1, "alpha", self.alpha, "in [0, 1], or null")
        require(0 <= self.gamma < float("inf"), "gamma", self.gamma, ">= 0 and finite")

    @classmethod
    def family(cls) -> dict[str, ConfidenceLoss]:
        """The focusing parameters of the paper's figure 4, and 5. Without alpha: shape, not balance."""
        return {f"gamma={gamma:g}": cls(None, gamma) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)}

    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        s = signed_logit(objectness_logits, targets.objectness)
        loss = cross_entropy(s) * (self.gamma * F.logsigmoid(-s)).exp()
        if self.alpha is None:
            return loss
        return loss * (self.alpha * targets.objectness + (1 - self.alpha) * (1 - targets.objectness))
