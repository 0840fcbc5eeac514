"""The metric against gamma, one line per alpha, BCE as a band."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.grid import (
    Grid,
    alpha_name,
    baseline_row,
    grid,
    why_no_grid,
)
from ablation.analyse.figures.shared.style import (
    BASELINE,
    WIDTH_IN,
    interval_bar,
    limits,
    number,
    series_colour,
    series_marker,
)
from ablation.analyse.view import StudyView


class GammaCurves(Figure):
    name = "gamma_curves"
    title = "Does focusing help? The metric against gamma"
    caption = (
        "Large markers are means over seeds, bars their {percent} t intervals, faint dots the single seeds; "
        "{n}, counted below the axis, where a cross marks an arm without a value. "
        "The grey band is BCE's {percent} interval, the dashed line its mean. An arrow says that an interval "
        "goes on beyond the axis, which is cut so that the points stay readable (with two seeds a 95% "
        "interval is 12.7 standard errors). Bars and band are not paired: judge a difference by the paired "
        "interval in the table. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        if (reason := why_no_grid(view)) is not None:
            return reason
        if len(grid(view).gammas) < 2:
            return "the study has only one gamma"
        return None

    def draw(self, view: StudyView) -> Canvas:
        cells, bce = grid(view), baseline_row(view)
        canvas = Canvas(figsize=(WIDTH_IN, 3.3 + 0.11 * len(cells.alphas)), layout="constrained")
        ax = canvas.add_subplot()
        places, to_scale = _places(cells.gammas)
        gap = min(np.diff(places))
        margin_x = places[0] - 0.9 * gap
        _set_limits(ax, view, cells, bce)
        if bce is not None:
            _baseline(ax, view, bce, margin_x, gap)
        for index, alpha in enumerate(cells.alphas):
            offset = (index - (len(cells.alphas) - 1) / 2) * min(0.12, 0.5 / len(cells.alphas)) * gap
            _line(ax, view, cells, alpha, index, [place + offset for place in places])
        left = margin_x - 0.5 * gap if bce is not None else places[0] - 0.5 * gap
        ax.set_xlim(left, places[-1] + 0.5 * gap)
        ticks, names = list(places), [f"{gamma:g}" for gamma in cells.gammas]
        if bce is not None:
            ticks, names = [margin_x, *ticks], ["BCE", *names]
            ax.axvline(places[0] - 0.5 * gap, color="#BBBBBB", linewidth=0.7)
        ax.set_xticks(ticks, names)
        _counts(ax, cells, places, bce, margin_x)
        below = 6 + 8 * len(cells.alphas)
        ax.set_xlabel("focusing parameter gamma" + ("" if to_scale else " (not to scale)"), labelpad=below)
        ax.set_ylabel(view.metric)
        ax.grid(axis="y")
        canvas.legend(loc="outside right upper", handlelength=1.8)
        return canvas


def _places(gammas: list[float]) -> tuple[list[float], bool]:
    """Where the gammas stand on the axis: to scale, unless two would stand too close to tell apart."""
    gaps = np.diff(gammas)
    if gaps.min() >= 0.06 * (gammas[-1] - gammas[0]):
        return gammas, True
    return [float(index) for index in range(len(gammas))], False


def _set_limits(ax: Axes, view: StudyView, cells: Grid, bce: pd.Series | None) -> None:
    arms = [*cells.arms.values(), *([bce] if bce is not None else [])]
    names = {str(arm["arm"]) for arm in arms}
    counted = view.runs[view.runs["valid"] & view.runs["arm"].isin(names)]
    points = [float(value) for value in counted[view.metric].dropna()]
    bounds = [float(arm[end]) for arm in arms for end in ("low", "high")]
    ax.set_ylim(*limits(points, bounds, reach=0.4))


def _seeds(view: StudyView, arm: pd.Series) -> list[float]:
    rows = view.runs[view.runs["valid"] & (view.runs["arm"] == arm["arm"])]
    return [float(value) for value in rows[view.metric].dropna()]


def _baseline(ax: Axes, view: StudyView, bce: pd.Series, x: float, gap: float) -> None:
    mean, low, high = float(bce["mean"]), float(bce["low"]), float(bce["high"])
    label = f"BCE, mean {number(mean)}"
    if math.isfinite(low):
        bottom, top = ax.get_ylim()
        ax.axhspan(max(low, bottom), min(high, top), color="#000000", alpha=0.09, linewidth=0)
        label += f"\n{view.percent} [{number(low)}, {number(high)}]"
    ax.axhline(mean, color=BASELINE, linewidth=1, linestyle=(0, (4, 2)), label=label, zorder=2)
    interval_bar(ax, x, low, high, BASELINE)
    _seed_dots(ax, x - 0.18 * gap, _seeds(view, bce), BASELINE, alpha=0.35)
    ax.plot([x], [mean], "o", color=BASELINE, markersize=5, zorder=5)


def _line(ax: Axes, view: StudyView, cells: Grid, alpha: float, index: int, xs: list[float]) -> None:
    colour = series_colour(index)
    means: list[float] = []
    aside = 0.06 * float(min(np.diff(xs)))
    for x, gamma in zip(xs, cells.gammas, strict=True):
        arm = cells.at(alpha, gamma)
        # NaN breaks the line: nothing is known between the neighbours of a run that diverged.
        means.append(math.nan if arm is None or not arm["n"] else float(arm["mean"]))
        if arm is None:
            continue
        if not arm["n"]:
            _no_value(ax, x, colour)
            continue
        interval_bar(ax, x, float(arm["low"]), float(arm["high"]), colour)
        _seed_dots(ax, x + aside, _seeds(view, arm), colour, alpha=0.4)
    label = f"focal, alpha = {alpha_name(alpha)}"
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
    line: dict[str, Any] = {"color": colour, "marker": series_marker(index), "markersize": 5, **edge}
    ax.plot(xs, means, linewidth=1.3, label=label, zorder=5, **line)


def _seed_dots(ax: Axes, x: float, values: list[float], colour: str, alpha: float) -> None:
    ax.plot([x] * len(values), values, "o", color=colour, markersize=3, alpha=alpha, markeredgewidth=0)


def _no_value(ax: Axes, x: float, colour: str) -> None:
    """An arm without a value is a result, so it is drawn: a cross on the axis."""
    bottom = ax.get_ylim()[0]
    ax.plot([x], [bottom], "x", color=colour, markersize=6, markeredgewidth=1.4, clip_on=False, zorder=6)


def _counts(ax: Axes, cells: Grid, places: list[float], bce: pd.Series | None, bce_place: float) -> None:
    """Below the axis: for every arm, the seeds that have a value, of those that should be there."""
    if bce is not None:
        _count(ax, bce_place, 0, bce, BASELINE)
    for row, alpha in enumerate(cells.alphas):
        for place, gamma in zip(places, cells.gammas, strict=True):
            arm = cells.at(alpha, gamma)
            if arm is not None:
                _count(ax, place, row, arm, series_colour(row))


def _count(ax: Axes, x: float, row: int, arm: pd.Series, colour: str) -> None:
    text = f"n = {int(arm['n'])}"
    if arm["n"] < arm["n_planned"]:
        text += f" of {int(arm['n_planned'])}"
    place: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
    look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 6, "color": colour}
    ax.annotate(text, (x, 0), (0, -18 - 8 * row), annotation_clip=False, **place, **look)
