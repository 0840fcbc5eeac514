"""How much of the loss the easiest cells hold: cumulative, normalised, sorted (RetinaNet's figure 4)."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ablation.losses
from ablation.losses.base import ConfidenceLoss
from ablation.training.diagnostics.cells import Cells

FRACTIONS: tuple[float, ...] = tuple(
    [i / 100 for i in range(90)] + [round(1 - 10 ** (-k / 10), 9) for k in range(10, 41)] + [1.0]
)
"""Where the curve is kept: every percent, then ten points for each tenth of what is left, to 1e-4."""


def cumulative(losses: NDArray[np.floating]) -> list[float] | None:
    """The share of the total loss that the easiest f of the cells hold, for each f of FRACTIONS.

    Linear between cells. None where there are no cells, or their loss is 0 or not finite.
    """
    ordered = np.sort(losses.astype(np.float64))
    total = ordered.sum()
    if not ordered.size or not np.isfinite(total) or total <= 0:
        return None
    shares = np.concatenate([[0.0], np.cumsum(ordered) / total])
    at = np.linspace(0, 1, ordered.size + 1)
    return [round(float(value), 9) for value in np.interp(FRACTIONS, at, shares)]


def families() -> dict[str, dict[str, ConfidenceLoss]]:
    """The families of all losses in ablation/losses: loss name -> label -> variant."""
    families = {}
    for info in sorted(pkgutil.iter_modules(ablation.losses.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{ablation.losses.__name__}.{info.name}")
        for item in vars(module).values():
            if (
                isinstance(item, type)
                and issubclass(item, ConfidenceLoss)
                and item.__module__ == module.__name__
            ):
                family = item.family()
                if family:
                    families[item.name()] = family
    return families


def loss_cdf(cells: Cells, loss: ConfidenceLoss) -> dict[str, Any]:
    """Curves of the arm's own loss and, on the same cells, of every family.

    Returns:
        images, positives, negatives: how many there are;
        fractions: see FRACTIONS;
        own: positives -> curve, negatives -> curve;
        families: loss name -> label -> the same.
    """
    positives = int((cells.objectness > 0).sum())
    return {
        "images": cells.images,
        "positives": positives,
        "negatives": len(cells.logits) - positives,
        "fractions": list(FRACTIONS),
        "own": _curves(cells, loss),
        "families": {
            name: {label: _curves(cells, variant) for label, variant in family.items()}
            for name, family in families().items()
        },
    }


@torch.no_grad()
def _curves(cells: Cells, loss: ConfidenceLoss) -> dict[str, list[float] | None]:
    costs = loss(cells.logits[None, None, None], cells.targets()).flatten().numpy()
    positive = (cells.objectness > 0).numpy()
    return {"positives": cumulative(costs[positive]), "negatives": cumulative(costs[~positive])}
