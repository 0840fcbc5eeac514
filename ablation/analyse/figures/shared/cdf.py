"""Curves of cumulative loss, for the two figures that show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.artifact_figures import Floats
from ablation.analyse.figures.shared.style import WIDTH_IN, plain_powers


def panels(rows_of_legend: int) -> tuple[Canvas, list[Axes]]:
    """Three panels: positives, negatives, and the hardest negatives on a logarithmic axis."""
    canvas = Canvas(figsize=(WIDTH_IN, 2.5 + 0.16 * rows_of_legend), layout="constrained")
    axes = list(canvas.subplots(1, 3, sharey=True))
    for ax, title in zip(axes, ("positives", "negatives", "the hardest negatives"), strict=True):
        ax.set_title(title, loc="left")
        ax.grid()
        ax.set_ylim(0, 1)
    for ax in axes[:2]:
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of cells, easiest first")
    axes[2].set_xscale("log")
    plain_powers(axes[2].xaxis)
    axes[2].set_xlim(1e-4, 1)
    axes[2].set_xlabel("share of cells, hardest first")
    axes[0].set_ylabel("share of the loss they hold")
    return canvas, axes


def curves(
    records: Sequence[dict[str, Any]], fractions: Sequence[float], part: str
) -> tuple[Floats, list[Floats]]:
    """The fractions and each run's curve of "positives" or "negatives"; runs without one are left out."""
    shares = [np.asarray(record[part], np.float64) for record in records if record[part] is not None]
    return np.asarray(fractions, np.float64), shares


def hardest(x: Floats, shares: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """The same curves seen from their other end: what the hardest f of the cells hold."""
    inside = x < 1
    return 1 - x[inside], [1 - values[inside] for values in shares]
