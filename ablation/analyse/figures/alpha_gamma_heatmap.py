"""Heat map of the metric over alpha and gamma, with the difference to BCE in every cell."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.grid import (
    Grid,
    alpha_name,
    baseline_row,
    grid,
    losses_of_runs,
    why_no_grid,
)
from ablation.analyse.figures.shared.style import BETTER, MUTED, WIDTH_IN, WORSE, number, signed
from ablation.analyse.view import StudyView

COLOURS = LinearSegmentedColormap.from_list("worse_better", [WORSE, "#F7F7F7", BETTER])


class AlphaGammaHeatmap(Figure):
    name = "alpha_gamma_heatmap"
    title = "Focal loss over alpha and gamma, against BCE"
    caption = (
        "Each cell is one focal arm: its mean {metric} (bold), below it the paired difference to plain BCE "
        "on the same seeds ± the half-width of its {percent} t interval, and the number of pairs; {n}. "
        "Blue is above BCE's mean, orange below, white equal to it; a difference smaller than its ± may be "
        "luck, and one seed has no ±. Hatched cells hold no value and say why. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        return why_no_grid(view)

    def draw(self, view: StudyView) -> Canvas:
        cells, bce = grid(view), baseline_row(view)
        width = min(max(1.5 + 1.12 * len(cells.gammas), 3.5), 1.4 * WIDTH_IN)
        canvas = Canvas(figsize=(width, 1.3 + 0.66 * len(cells.alphas)), layout="constrained")
        ax = canvas.add_subplot()
        norm = _norm([float(arm["mean"]) for arm in cells.arms.values() if arm["n"]], bce)
        for row, alpha in enumerate(cells.alphas):
            for column, gamma in enumerate(cells.gammas):
                _cell(ax, column, row, cells.at(alpha, gamma), norm, bce is not None)
        _axes(ax, cells)
        _colourbar(canvas, ax, norm, view, bce)
        ax.set_title(_subtitle(view, bce), loc="left", fontsize=8)
        return canvas


def _norm(means: list[float], bce: pd.Series | None) -> Normalize:
    """White at BCE's mean and the same distance to full colour on both sides."""
    if bce is None:
        low, high = min(means), max(means)
        reach = max((high - low) / 2, 1e-3)
        return TwoSlopeNorm((low + high) / 2, (low + high) / 2 - reach, (low + high) / 2 + reach)
    centre = float(bce["mean"])
    reach = max(max(abs(mean - centre) for mean in means), 1e-3)
    return TwoSlopeNorm(centre, centre - reach, centre + reach)


def _cell(ax: Axes, x: int, y: int, arm: pd.Series | None, norm: Normalize, compared: bool) -> None:
    corner = (x - 0.5, y - 0.5)
    if arm is None or not arm["n"]:
        edge = "#DDDDDD" if arm is None else "#999999"
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor=edge, hatch="////", linewidth=0))
        text = "not in\nthe study" if arm is None else losses_of_runs(arm).replace(", ", "\n")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(x, y, text or "no value", ha="center", va="center", fontsize=7, color=MUTED, bbox=box)
        return
    colour = COLOURS(norm(float(arm["mean"])))
    ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = "white" if luminance < 0.5 else "black"
    lines = _difference(arm, compared)
    top = y - 0.13 * len(lines)
    mean = number(float(arm["mean"]))
    ax.text(x, top, mean, ha="center", va="center", fontsize=8.5, weight="bold", color=ink)
    for index, line in enumerate(lines):
        ax.text(x, top + 0.26 * (index + 1), line, ha="center", va="center", fontsize=6.3, color=ink)


def _difference(arm: pd.Series, compared: bool) -> list[str]:
    compared = compared and "n_pairs" in arm.index  # a view that was not judged has no differences
    pairs = int(arm["n_pairs"]) if compared else 0
    count = f"n = {pairs if compared and pairs else int(arm['n'])}"
    lost = losses_of_runs(arm)
    last = ", ".join(text for text in (count, lost) if text)
    if not compared:
        return [last]
    if pairs == 0:
        return ["not compared with BCE", last]
    half = (float(arm["difference_high"]) - float(arm["difference_low"])) / 2
    spread = f" ± {number(half)}" if math.isfinite(half) else " ± ?"
    return [signed(float(arm["difference"])) + spread, last]


def _axes(ax: Axes, cells: Grid) -> None:
    ax.set_xlim(-0.5, len(cells.gammas) - 0.5)
    ax.set_ylim(len(cells.alphas) - 0.5, -0.5)
    ax.set_xticks(range(len(cells.gammas)), [f"{gamma:g}" for gamma in cells.gammas])
    ax.set_yticks(range(len(cells.alphas)), [alpha_name(alpha) for alpha in cells.alphas])
    ax.set_xlabel("focusing parameter gamma")
    ax.set_ylabel("weight of positives alpha")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _colourbar(canvas: Canvas, ax: Axes, norm: Normalize, view: StudyView, bce: pd.Series | None) -> None:
    from matplotlib.cm import ScalarMappable

    bar = canvas.colorbar(ScalarMappable(norm, COLOURS), ax=ax, aspect=14, pad=0.02)
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    ticks = [low, (low + high) / 2, high]
    middle = f"{number(ticks[1])}" + (" BCE" if bce is not None else "")
    bar.set_ticks(ticks, labels=[number(low), middle, number(high)])
    bar.set_label(f"mean {view.metric}")
    bar.outline.set_visible(False)


def _subtitle(view: StudyView, bce: pd.Series | None) -> str:
    if bce is None:
        return f"mean {view.metric}\nno BCE arm with a value, so no differences"
    interval = f" [{number(float(bce['low']))}, {number(float(bce['high']))}]" if bce["n"] > 1 else ""
    mean = f"BCE: {view.metric} {number(float(bce['mean']))}{interval}, n = {int(bce['n'])}"
    return f"{mean}\ncells: mean, paired difference ± {view.percent} interval"
