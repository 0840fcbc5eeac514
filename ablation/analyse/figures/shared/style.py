"""Colours, sizes and small drawing helpers that the figures share."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatterSciNotation

WIDTH_IN = 7.0
"""Width of a text block of two columns, in inches; a single column is half of it."""
DPI = 200

# Okabe and Ito, "Color Universal Design", 2008: told apart with every common colour blindness.
BASELINE = "#000000"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WORSE, BETTER = "#D55E00", "#0072B2"
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.")
MUTED = "#666666"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "pdf.fonttype": 42,
    "svg.hashsalt": "ablation",
    "path.simplify": False,
    # Names of classes and settings come from data: a $ in them is a dollar sign. See plain_powers.
    "text.parse_math": False,
}


def house_style() -> AbstractContextManager[None]:
    """Matplotlib's defaults with STYLE, whatever the user's matplotlibrc says."""
    return mpl.style.context(["default", STYLE])


def number(value: float) -> str:
    """A metric for people: three decimals for shares, four digits for larger numbers."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def signed(value: float) -> str:
    """A difference for people, with its sign."""
    return number(value) if not math.isfinite(value) or value < 0 else f"+{number(value)}"


class PowersOfTen(LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain text with raised digits; the base class writes formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of the tick at x; empty where it has none."""
        formula = str(super().__call__(x, pos)).removeprefix("$\\mathdefault{").removesuffix("}$")
        factor, _, exponent = formula.replace(r"\times", "\u00d7").partition("^{")
        return factor + exponent.rstrip("}").translate(_SUPERSCRIPT)


_SUPERSCRIPT = str.maketrans(
    "0123456789-", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
)


def plain_powers(*axes: Axis) -> None:
    """Label logarithmic axes with plain text; call it after their scale is set."""
    for axis in axes:
        axis.set_major_formatter(PowersOfTen())
        axis.set_minor_formatter(PowersOfTen(labelOnlyBase=False))


def series_colour(index: int) -> str:
    """The colour of the index-th series; with a new dash pattern after each round."""
    return OKABE_ITO[index % len(OKABE_ITO)]


def series_dash(index: int) -> str:
    """The line style of the index-th series."""
    return DASHES[index // len(OKABE_ITO) % len(DASHES)]


def series_marker(index: int) -> str:
    """The marker of the index-th series: shape repeats what colour says."""
    return MARKERS[index % len(MARKERS)]


def limits(points: list[float], bounds: list[float], reach: float = 0.6) -> tuple[float, float]:
    """Axis limits that keep the points readable.

    The range of `points`, widened towards `bounds` (ends of intervals) by at most `reach` of that
    range on each side: with two seeds an interval is so wide that it would flatten everything else.
    """
    low, high = min(points), max(points)
    span = (high - low) or max(abs(high) * 0.2, 0.01)
    finite = [bound for bound in bounds if math.isfinite(bound)]
    bottom = max(min([low, *finite]), low - reach * span)
    top = min(max([high, *finite]), high + reach * span)
    return bottom - 0.08 * span, top + 0.08 * span


def interval_bar(ax: Axes, x: float, low: float, high: float, colour: str, width: float = 1.1) -> None:
    """A vertical interval within the axis's limits; an end outside them becomes an arrow at the edge."""
    bottom, top = ax.get_ylim()
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    inside = max(low, bottom), min(high, top)
    ax.plot([x, x], inside, color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
    for end, edge, clipped, arrow in (
        (inside[0], bottom, low < bottom, "v"),
        (inside[1], top, high > top, "^"),
    ):
        place, shape, size = (edge, arrow, 4.5) if clipped else (end, "_", 4)
        mark: dict[str, Any] = {"marker": shape, "markersize": size, "markeredgewidth": width * 0.8}
        ax.plot([x], [place], color=colour, linestyle="none", clip_on=False, zorder=4, **mark)
