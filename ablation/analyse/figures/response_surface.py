"""The metric over gamma and alpha as a smooth surface, and where its best may lie."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.style import WIDTH_IN, number
from ablation.analyse.figures.shared.surface import Surface, fit, points, why_no_surface
from ablation.analyse.view import StudyView
from ablation.rng import generator


class ResponseSurface(Figure):
    name = "response_surface"
    title = "Where over alpha and gamma the best lies"
    caption = (
        "Left: a Gaussian process through all focal runs ({n}): contours of the expected {metric}, dots the "
        "arms that were trained, filled by their own mean on the same colours; a dot that stands out from "
        "its surroundings is noise or a place where the surface is not smooth. Right: the probability that "
        "the best setting lies at each place, from joint draws; the outline holds 80% of it, "
        "the star is the highest expectation. A wide outline "
        "means that these runs do not tell where the best is. Arms without alpha have no place "
        "on this plane and are left out. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        return why_no_surface(view)

    def draw(self, view: StudyView) -> Canvas:
        runs = points(view)
        surface = fit(runs, generator(0, "response surface"))
        canvas = Canvas(figsize=(WIDTH_IN, 2.9), layout="constrained")
        left, right = canvas.subplots(1, 2, sharey=True)
        arms = runs.groupby(["gamma", "logit"])["value"].agg(["mean", "count"]).reset_index()
        low = min(float(surface.mean.min()), float(arms["mean"].min()))
        high = max(float(surface.mean.max()), float(arms["mean"].max()))
        levels = np.linspace(low, high + 1e-9, 12)
        filled = left.contourf(surface.gammas, surface.logits, surface.mean, levels, cmap="viridis")
        colours = {"c": arms["mean"], "vmin": low, "vmax": high, "cmap": "viridis"}
        dot = {"edgecolors": "white", "linewidths": 0.9, "s": 34, "zorder": 3, "clip_on": False}
        left.scatter(arms["gamma"], arms["logit"], **colours, **dot)
        label = {"fontsize": 5.5, "textcoords": "offset points", "color": "white"}
        for _, arm in arms.iterrows():
            left.annotate(f"{int(arm['count'])}", (arm["gamma"], arm["logit"]), (5, 3), **label)
        bar = canvas.colorbar(filled, ax=left, ticks=[low, (low + high) / 2, high], aspect=24, pad=0.02)
        bar.ax.set_yticklabels([number(v) for v in (low, (low + high) / 2, high)])
        title = f"expected {view.metric}; one run varies by ± {number(surface.noise)}"
        left.set_title(title, loc="left", fontsize=8)
        _best(right, surface)
        for ax in (left, right):
            ax.set_xlabel("focusing parameter gamma")
            alphas = sorted(set(runs["alpha"]))
            ax.set_yticks([float(np.log(a / (1 - a))) for a in alphas], [f"{a:g}" for a in alphas])
        left.set_ylabel("weight of positives alpha")
        return canvas


def _best(ax: Axes, surface: Surface) -> None:
    ax.pcolormesh(
        surface.gammas, surface.logits, surface.best, cmap="Blues", shading="nearest", rasterized=True
    )
    ordered = np.sort(surface.best.ravel())[::-1]
    edge = ordered[np.searchsorted(np.cumsum(ordered), 0.8)]
    inside = (surface.best >= edge).astype(float)
    if inside.min() < inside.max():
        ax.contour(surface.gammas, surface.logits, inside, [0.5], colors="#333333", linewidths=0.8)
    row, column = np.unravel_index(int(surface.mean.argmax()), surface.mean.shape)
    ax.plot(surface.gammas[column], surface.logits[row], "*", color="#D55E00", markersize=9, clip_on=False)
    ax.set_title("probability of being the best", loc="left", fontsize=8)
