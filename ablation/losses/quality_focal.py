"""Quality focal loss: focal loss whose label is how well the box fits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets

_NEAREST = 1e-6


@dataclass(frozen=True)
class QualityFocal(ConfidenceLoss):
    """L(z, y) = |y - p|^beta (-y log p - (1 - y) log(1 - p)),  p = sigmoid(z).

    y is the quality (the detached IoU of the predicted box) at positives and 0 at negatives, so the
    confidence learns how well a box fits. The loss is least at p = y.

    Source: Li et al., "Generalized Focal Loss", arXiv 2006.04388, equation 5, where beta = 2.

    For 0 < beta < 1 the equation itself has a cusp at p = y: its slope is infinite there. |y - p| is
    therefore not taken below 1e-6, which bounds the slope of the factor and changes the value by
    less than 1e-6^beta. At beta = 0 the factor is exactly 1: binary cross-entropy with a soft label.

    Attributes:
        beta: >= 0, the focusing parameter; 0 switches focusing off.
    """

    beta: float = 2.0

    def __post_init__(self) -> None:
        require(0 <= self.beta < float("inf"), "beta", self.beta, ">= 0 and finite")

    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        z, y = objectness_logits, targets.objectness * targets.quality
        loss = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        if self.beta == 0:
            return loss
        # 1 - p is sigmoid(-z): on either side the small one of p and 1 - p enters with all its digits.
        distance = torch.where(z > 0, z.neg().sigmoid() - (1 - y), y - z.sigmoid()).abs()
        return loss * (self.beta * distance.clamp(min=_NEAREST).log()).exp()
