"""Two pictures of a settle's path: which arm left when, and each look with its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.figure
from matplotlib.axes import Axes
from scipy import special

from ablation.analyse.figures.shared import style
from ablation.analyse.verdict.look_outcome import Look

SIDE_COLOURS = {"others": style.OKABE_ITO[0], "bce": style.BASELINE}


@dataclass(frozen=True)
class ExploredArm:
    """One arm of the exploration.

    Attributes:
        values: of its runs, by round; None: it diverged.
        end: "finalist", "goes on", or after which round and why it left.
    """

    arm: str
    side: str
    values: tuple[float | None, ...]
    end: str
    stays: bool


def differs_from(look: Look) -> float:
    """The smallest |difference| that this look would have called better or worse."""
    return look.high - look.difference


def equal_within(look: Look, margin: float) -> float:
    """The largest |difference| that this look would have called equivalent; NaN where none."""
    if not look.se > 0:
        return math.nan
    limit = margin + look.se * float(special.stdtrit(look.df, look.tost_limit))
    return limit if limit > 0 else math.nan


def draw_exploration(arms: Sequence[ExploredArm], metric: str) -> matplotlib.figure.Figure:
    """One row an arm: a dot for each run, a bar at the mean, what became of it at the right."""
    figure = matplotlib.figure.Figure(figsize=(style.WIDTH_IN, 0.75 + 0.21 * len(arms)), layout="constrained")
    ax = figure.add_subplot()
    for row, arm in enumerate(arms):
        colour = SIDE_COLOURS.get(arm.side, style.MUTED)
        finished = [value for value in arm.values if value is not None]
        alpha = 1.0 if arm.stays else 0.45
        ax.plot(finished, [row] * len(finished), "o", color=colour, markersize=3.5, alpha=alpha, zorder=3)
        if finished:
            mean = sum(finished) / len(finished)
            ax.plot([mean, mean], [row - 0.32, row + 0.32], color=colour, linewidth=1.6, alpha=alpha)
        ax.annotate(
            arm.end.partition(":")[0],
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            fontweight="bold" if arm.stays else "normal",
            color=style.BASELINE if arm.stays else style.MUTED,
        )
    ax.set_yticks(range(len(arms)), [arm.arm for arm in arms])
    for label, arm in zip(ax.get_yticklabels(), arms, strict=True):
        label.set_color(SIDE_COLOURS.get(arm.side, style.MUTED))
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.set_xlabel(f"{metric} of each run (dots) and mean (bars)")
    ax.grid(axis="x")
    return figure


def draw_looks(
    looks: Sequence[Look], declared: Sequence[int], margin: float, metric: str
) -> matplotlib.figure.Figure:
    """The difference at each look, with the limits that end it as better, worse or equivalent."""
    figure = matplotlib.figure.Figure(figsize=(style.WIDTH_IN, 3.1), layout="constrained")
    ax = figure.add_subplot()
    ax.axhspan(-margin, margin, color="#E8EEF4", zorder=0, label=f"within the margin of {margin:g}")
    ax.axhline(0, color=style.MUTED, linewidth=0.6)
    _draw_limits(ax, looks, margin)
    for look in looks:
        ax.plot([look.planned] * 2, [look.low, look.high], color=style.MUTED, linewidth=1.0, zorder=3)
    ax.plot(
        [look.planned for look in looks],
        [look.difference for look in looks],
        "-o",
        color=style.BASELINE,
        markersize=4.5,
        linewidth=0.8,
        zorder=4,
        label="difference and repeated interval",
    )
    last = looks[-1]
    ax.annotate(
        last.verdict, (last.planned, last.difference), (7, 5), textcoords="offset points", fontsize=8,
        fontweight="bold", zorder=5,
    )  # fmt: skip
    ax.set_xticks(list(declared))
    ax.set_xlim(declared[0] - 0.6, declared[-1] + 0.8)
    reach = max([margin, *(abs(look.difference) for look in looks)])
    bounds = [abs(bound) for look in looks for bound in (look.low, look.high) if math.isfinite(bound)]
    top = 1.12 * min(max([reach, *bounds]), 6 * reach)
    ax.set_ylim(-top, top)
    ax.set_xlabel("pairs of runs on fresh seeds; the ticks are the declared looks")
    ax.set_ylabel(f"other loss - BCE, {metric}")
    ax.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=4)
    return figure


def _draw_limits(ax: Axes, looks: Sequence[Look], margin: float) -> None:
    """Triangles at the limits of better and worse, a bar between those of equivalent."""
    pairs = [look.planned for look in looks]
    differs = [differs_from(look) for look in looks]
    ax.plot(pairs, differs, "^", color=style.BETTER, markersize=5, label="better from here up")
    worse = [-limit for limit in differs]
    ax.plot(pairs, worse, "v", color=style.WORSE, markersize=5, label="worse from here down")
    label: str | None = "equivalent in here"
    for look in looks:
        within = equal_within(look, margin)
        if math.isfinite(within):
            ax.plot(
                [look.planned] * 2, [-within, within], color=style.OKABE_ITO[2], linewidth=5, alpha=0.55,
                solid_capstyle="butt", zorder=2, label=label,
            )  # fmt: skip
            label = None
