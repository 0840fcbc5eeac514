"""Asymmetric loss: positives and negatives focus each for themselves, easy negatives cost nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets


@dataclass(frozen=True)
class ASL(ConfidenceLoss):
    """L(z, 1) = (1 - p)^gamma_pos (-log p),  L(z, 0) = p_m^gamma_neg (-log(1 - p_m)).

    p = sigmoid(z) and p_m = max(p - margin, 0): a negative below the margin costs nothing and has no
    gradient.

    Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", arXiv 2009.14119,
    equations 5 to 7, where gamma_pos 0, gamma_neg 4 and margin .05. With a prior of .01 on the
    objectness every cell starts below that margin, so that negatives speak up only once positives
    have raised them; a smaller margin may suit a detector better.

    Powers are taken of logarithms, as in focal loss, and log(1 - p_m) is the logarithm of
    sigmoid(-z) + margin, summed without leaving the logarithms. With equal gammas and margin 0
    this is focal loss without alpha, bit for bit.

    Attributes:
        gamma_pos, gamma_neg: >= 0, focusing parameters of positives and of negatives.
        margin: in [0, 1), taken off the probability of negatives.
    """

    gamma_pos: float = 0.0
    gamma_neg: float = 4.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        for name in ("gamma_pos", "gamma_neg"):
            require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), ">= 0 and finite")
        require(0 <= self.margin < 1, "margin", self.margin, "in [0, 1)")

    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        z = objectness_logits
        positive = -F.logsigmoid(z) * (self.gamma_pos * F.logsigmoid(-z)).exp()
        return torch.where(targets.objectness > 0.5, positive, self._negative(z))

    def _negative(self, z: Tensor) -> Tensor:
        if self.margin == 0:
            return -F.logsigmoid(-z) * (self.gamma_neg * F.logsigmoid(z)).exp()
        log_margin = torch.full_like(z, math.log(self.margin))
        # Below the margin the logarithm is of a number above 1: the clamp makes cost and gradient 0.
        cost = (-torch.logaddexp(F.logsigmoid(-z), log_margin)).clamp(min=0)
        shifted = (z.sigmoid() - self.margin).clamp(min=torch.finfo(z.dtype).eps ** 2)
        return cost * (self.gamma_neg * shifted.log()).exp()
