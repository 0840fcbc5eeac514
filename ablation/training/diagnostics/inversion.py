"""What a score means: the true probability at which a loss is least for that score.

A loss that is not proper distorts: where an object is there with probability eta, the network that
minimises the expected loss predicts another number v. It solves

    eta dL(v, 1)/dz + (1 - eta) dL(v, 0)/dz = 0,   so   eta = g-(v) / (g-(v) + g+(v)),

with g+ and g- the size of the gradient at label 1 and 0. For BCE eta = v. Focal loss draws v towards
the middle, which re-ranks detections, since their score is objectness times class probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation.losses.base import ConfidenceLoss, ConfidenceTargets
from ablation.training.evaluate import CocoResult

GRID_LIMIT = 16.0
GRID_STEP = 0.1


def log_odds(loss: ConfidenceLoss, objectness_logits: Tensor) -> Tensor:
    """log(eta / (1 - eta)) = log g- - log g+ of each score, (n,) float64, from the loss's own gradient.

    A loss that reads the quality of a box is taken at its best: quality 1 at positives.
    -inf where the loss has no gradient at label 0 (nothing there can be told from 0), +inf where it
    has none at label 1, NaN where it has neither.
    """
    sizes = []
    for label in (0.0, 1.0):
        z = objectness_logits.detach().double().cpu().clone()[None, None, None].requires_grad_()
        y = torch.full_like(z, label, requires_grad=False)
        with torch.enable_grad():
            cost = loss(z, ConfidenceTargets(y, y, torch.ones_like(y, dtype=torch.bool)))
            (gradient,) = torch.autograd.grad(cost.sum(), z)
        sizes.append(gradient.abs().flatten())
    return sizes[0].log() - sizes[1].log()


def true_probability(loss: ConfidenceLoss, scores: Tensor) -> Tensor:
    """eta of each score in [0, 1], (n,) float64. NaN where the loss has no gradient at all."""
    safe = scores.double().clamp(1e-12, 1 - 1e-12)
    return log_odds(loss, torch.logit(safe)).sigmoid()


def inversion_record(loss: ConfidenceLoss) -> dict[str, Any]:
    """eta on a grid of scores, both as logits: smooth and nearly straight, so that it interpolates well.

    Returns:
        logits: of the score; log_odds: of eta, null where it is not finite; quality: what was
        assumed at positives; increasing: whether a higher score always means a higher probability.
    """
    count = round(2 * GRID_LIMIT / GRID_STEP)
    logits = torch.linspace(-GRID_LIMIT, GRID_LIMIT, count + 1, dtype=torch.float64)
    odds = log_odds(loss, logits)
    finite = odds[odds.isfinite()]
    return {
        "quality": 1.0,
        "increasing": bool((finite.diff() > 0).all()),
        "logits": [round(value, 6) for value in logits.tolist()],
        "log_odds": [value if np.isfinite(value) else None for value in odds.tolist()],
    }


def recalibrated(results: list[CocoResult], loss: ConfidenceLoss) -> list[CocoResult]:
    """The same detections with score' = eta(objectness) x class probability.

    Non-maximum suppression and the choice of the kept ones stay as they were: they saw the raw score.
    Where eta is undefined, the score is left as it is.
    """
    if not results:
        return []
    objectness = torch.tensor([result["objectness"] for result in results], dtype=torch.float64)
    scores = torch.tensor([result["score"] for result in results], dtype=torch.float64)
    eta = true_probability(loss, objectness)
    new = torch.where(eta.isnan(), scores, eta * scores / objectness.clamp(min=1e-12))
    # float32 as the scores were: what was equal before stays equal.
    return [
        result | {"score": score}
        for result, score in zip(results, new.float().double().tolist(), strict=True)
    ]
