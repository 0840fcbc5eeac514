"""Varifocal loss: focusing at negatives only, positives weighted by how well their box fits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets


@dataclass(frozen=True)
class Varifocal(ConfidenceLoss):
    """L(z, q) = q (-q log p - (1 - q) log(1 - p)) where q > 0, else alpha p^gamma (-log(1 - p)).

    p = sigmoid(z); q is the quality (the detached IoU of the predicted box) at positives, 0 elsewhere.
    Unlike focal loss it never weighs a positive down for being easy, and alpha weights NEGATIVES.
    A positive whose box misses its object altogether has q = 0 and so counts as a negative, as in
    the source.

    Source: Zhang et al., "VarifocalNet", arXiv 2008.13367, equation 2; alpha .75 and gamma 2 there.

    p^gamma is computed as exp(gamma log sigmoid(z)), which keeps value and gradient finite.

    Attributes:
        alpha: >= 0, weight of negatives.
        gamma: >= 0, the focusing parameter of negatives; 0 switches focusing off.
    """

    alpha: float = 0.75
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(0 <= self.alpha < float("inf"), "alpha", self.alpha, ">= 0 and finite")
        require(0 <= self.gamma < float("inf"), "gamma", self.gamma, ">= 0 and finite")

    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        z, q = objectness_logits, targets.objectness * targets.quality
        cross_entropy = F.binary_cross_entropy_with_logits(z, q, reduction="none")
        focus = self.alpha * (self.gamma * F.logsigmoid(z)).exp()
        return cross_entropy * torch.where(q > 0, q, focus)
