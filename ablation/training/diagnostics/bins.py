"""Histograms over logits and over powers of ten: bins that resolve .0001 and .9999 alike."""

from __future__ import annotations

import torch
from torch import Tensor

LOGIT_STEP = 0.25
LOGIT_LIMIT = 14.0
"""Bins of a probability p, by log(p / (1 - p)): from 8e-7 to 1 - 8e-7."""
DECADE_BINS = 8
DECADES = (-10, 3)
"""Bins of a size, by its logarithm to base 10."""


def logit_edges() -> list[float]:
    """The edges of the bins of a probability, in logits, rising. What lies outside is in the end bins."""
    count = round(2 * LOGIT_LIMIT / LOGIT_STEP)
    return [-LOGIT_LIMIT + LOGIT_STEP * i for i in range(count + 1)]


def log10_edges() -> list[float]:
    """The edges of the bins of a size, as log10, rising. 0 and what is smaller are in the first bin."""
    first, last = DECADES
    return [first + i / DECADE_BINS for i in range((last - first) * DECADE_BINS + 1)]


def histogram(values: Tensor, edges: list[float], weights: Tensor | None = None) -> list[float]:
    """The sum of `weights` (of ones: the count) in each bin; values outside go to the end bins.

    Args:
        values: (n,), any order; -inf is allowed.
        edges: rising.
        weights: (n,).
    """
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    index = torch.bucketize(values.double().cpu(), inner, right=True)
    sums = torch.zeros(len(edges) - 1, dtype=torch.float64)
    ones = torch.ones_like(index, dtype=torch.float64) if weights is None else weights.double().cpu()
    return [float(value) for value in sums.scatter_add_(0, index, ones)]
