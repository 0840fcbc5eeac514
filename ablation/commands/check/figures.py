"""Figures of a data set's audit: class balance, box sizes against anchors, cells per head."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ablation.analyse.figures.shared import style
from ablation.analyse.figures.shared.base import METADATA
from ablation.commands.check.audit import Audit

_CELL_COLOURS = (style.BETTER, "#BBBBBB", style.WORSE)
_CLASSES_SHOWN = 40
_POINTS_SHOWN = 5000
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def draw(audit: Audit) -> dict[str, bytes]:
    """Every figure that applies, as file name -> content, PNG and PDF. Equal audits, equal bytes."""
    drawings: dict[str, Callable[[Audit], Figure]] = {"class_balance": class_balance}
    if len(audit.splits["train"].sizes_px):
        drawings["box_sizes"] = box_sizes
    if audit.cells:
        drawings["cells"] = cells
    files: dict[str, bytes] = {}
    with style.house_style():
        for name, drawing in drawings.items():
            figure = drawing(audit)
            for kind in ("png", "pdf"):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, dpi=style.DPI, metadata=METADATA[kind])
                files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def class_balance(audit: Audit) -> Figure:
    """Boxes per class and split, on a logarithmic axis; the most frequent classes if there are many."""
    train = audit.splits["train"].boxes_per_class
    order = sorted(audit.classes, key=lambda name: -train[name])[:_CLASSES_SHOWN]
    count = len(audit.splits)
    figure = _figure(1.1 + 0.17 * len(order) * count)
    ax = figure.subplots()
    height = 0.8 / count
    largest = 1
    for index, (split, part) in enumerate(audit.splits.items()):
        values = [part.boxes_per_class[name] for name in order]
        places = np.arange(len(order)) + (index - (count - 1) / 2) * height
        # The axis begins at 0.5, so that one box is a bar and none is not.
        lengths = [max(value - 0.5, 0) for value in values]
        ax.barh(places, lengths, height * 0.9, left=0.5, label=split, color=style.series_colour(index))
        for place, value in zip(places, values, strict=True):
            ax.text(max(value, 0.5), place, f" {value:,}", va="center", fontsize=6.5, color=style.MUTED)
        largest = max(largest, *values)
    ax.set_xscale("log")
    ax.set_xlim(0.5, largest * 4)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    ax.set_yticks(range(len(order)), [_short(name) for name in order])
    ax.invert_yaxis()
    ax.set_xlabel("boxes (logarithmic)")
    hidden = len(audit.classes) - len(order)
    ax.set_title(f"Boxes per class{f' (the {len(order)} most frequent)' if hidden else ''}", loc="left")
    ax.legend(loc="lower right")
    return figure


def box_sizes(audit: Audit) -> Figure:
    """Widths and heights of the train boxes at the input's size, with both sets of anchors."""
    sizes = audit.splits["train"].sizes_px
    # Every n-th box: a figure of a million points says no more.
    points = sizes[:: max(1, -(-len(sizes) // _POINTS_SHOWN))]
    figure = _figure(4.4)
    ax = figure.subplots()
    dots: dict[str, Any] = {"s": 5, "color": "#999999", "alpha": 0.35, "linewidths": 0, "rasterized": True}
    ax.scatter(points[:, 0], points[:, 1], label=_point_count(len(points), len(sizes)), **dots)
    for name, fit, colour, marker in (
        ("anchors of the model", audit.model_fit, style.WORSE, "s"),
        ("k-means anchors", audit.kmeans_fit, style.BETTER, "o"),
    ):
        outline: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.5}
        widths, heights = np.array(fit.anchors_px).T
        label = f"{name}: mean best IoU {fit.mean_best_iou:.3f}"
        ax.scatter(widths, heights, s=42, marker=marker, label=label, zorder=3, **outline)
    anchors = np.array([*audit.model_fit.anchors_px, *audit.kmeans_fit.anchors_px])
    everything = np.concatenate([sizes, anchors])
    low, high = everything.min(axis=0) / 1.3, everything.max(axis=0) * 1.3
    _sides(ax, (low[0], high[0]), (low[1], high[1]))
    ax.set_title(f"Box sizes of the train split, letterboxed to {audit.size_px} px", loc="left")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    return figure


def cells(audit: Audit) -> Figure:
    """Positives, ignored and negatives of each head over the train split."""
    train = audit.cells["train"]
    figure = _figure(2.6)
    ax = figure.subplots()
    kinds = ("positives", "ignored", "negatives")
    width = 0.27
    for index, kind in enumerate(kinds):
        values = [getattr(head, kind) for head in train.heads]
        places = np.arange(len(values)) + (index - 1) * width
        heights, colour = [max(value, 0.5) for value in values], _CELL_COLOURS[index]
        ax.bar(places, heights, width * 0.92, label=kind, color=colour)
        for place, value in zip(places, values, strict=True):
            ax.text(place, max(value, 0.5), f"{value:,}", ha="center", va="bottom", fontsize=6.5)
    ax.set_yscale("log")
    ax.set_ylim(0.5, max(head.negatives for head in train.heads) * 6)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    ax.set_xticks(range(len(train.heads)), [_head(head.stride, audit.size_px) for head in train.heads])
    ax.set_ylabel("cells x anchors (logarithmic)")
    odds = (
        f"1 positive to {train.others / train.positives:,.0f} others" if train.positives else "no positives"
    )
    lost = f"{train.boxes_lost:,} of {train.boxes:,} boxes lost"
    ax.set_title(
        f"What the confidence loss sees in {train.images:,} train images: {odds}, {lost}", loc="left"
    )
    ax.legend(loc="upper left", ncols=3)
    return figure


def _figure(height_in: float) -> Figure:
    return Figure(figsize=(style.WIDTH_IN, height_in), layout="constrained")


def _sides(ax: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    """Logarithmic axes in whole pixels."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*across)
    ax.set_ylim(*up)
    for axis, (low, high) in ((ax.xaxis, across), (ax.yaxis, up)):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_ticks([tick for tick in _TICKS if low <= tick <= high])
    ax.grid(True)
    ax.set_xlabel("width, px of the input")
    ax.set_ylabel("height, px of the input")


def _point_count(plotted: int, total: int) -> str:
    return f"{total:,} boxes" if plotted == total else f"{plotted:,} of {total:,} boxes"


def _head(stride: int, size_px: int) -> str:
    return f"stride {stride} ({size_px // stride} x {size_px // stride} cells)"


def _short(name: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return text if len(text) <= 28 else f"{text[:27]}..."
