"""Where the gradient goes over training: positives, easy and hard negatives; box, class, confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.run_files import number
from ablation.analyse.figures.shared.artifact_figures import DiagnosticFigure, Floats
from ablation.analyse.figures.shared.style import WIDTH_IN, plain_powers
from ablation.analyse.view import StudyView

GROUPS = {"positives": "#0072B2", "hard_negatives": "#D55E00", "easy_negatives": "#E6C79C"}
TERMS = {"confidence": "#009E73", "class": "#CC79A7", "box": "#BBBBBB"}


class GradientShares(DiagnosticFigure):
    name = "gradient_shares"
    title = "Where the gradient goes, over training"
    files = ("diagnostics/gradients.json",)
    caption = (
        "One column per arm, means over its seeds, {n}. Top: share of the confidence gradient, sum of "
        "|dL/dz| over cells (z: objectness logit), in positives, hard negatives (objectness above .1) and "
        "easy ones. Middle: share of the three terms in the gradient on the heads' outputs (2-norms). "
        "Bottom: the same confidence gradient as absolute sums, gain and normaliser included. An arm that "
        "differs from BCE only in the scale of its loss has BCE's upper row, and other heights below. "
        "Measured on the same training images at each evaluation; epoch 0 is before training. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas = Canvas(figsize=(WIDTH_IN, 5.0), layout="constrained")
        grid = canvas.subplots(3, len(arms), sharex=True, sharey="row", squeeze=False)
        for column, arm in enumerate(arms):
            records = self.records(view, arm)
            epochs, groups = _means(records, "objectness", list(GROUPS))
            _, terms = _means(records, "outputs_l2", list(TERMS))
            top, middle, bottom = grid[:, column]
            _stack(top, epochs, groups, list(GROUPS.values()))
            _stack(middle, epochs, terms, list(TERMS.values()))
            for values, (name, colour) in zip(groups, GROUPS.items(), strict=True):
                edge = "#B08A4A" if name == "easy_negatives" else colour
                positive = np.where(values > 0, values, np.nan)
                bottom.plot(epochs, positive, color=edge, linewidth=1.4, marker="o", markersize=2)
            bottom.set_yscale("log")
            plain_powers(bottom.yaxis)
            bottom.grid(axis="y")
            bottom.set_xlabel("epoch")
            bottom.xaxis.get_major_locator().set_params(integer=True)
            top.set_title(arm.title, fontsize=7)
        grid[0, 0].set_ylabel("share of the\nconfidence gradient")
        grid[1, 0].set_ylabel("share of each term\non the outputs")
        grid[2, 0].set_ylabel("sum of |dL/dz|\n(log scale)")
        _legend(canvas)
        return canvas


def _means(records: list[dict[str, Any]], part: str, names: list[str]) -> tuple[Floats, Floats]:
    """(epochs,) and (names, epochs): means over the runs, at the epochs that all of them have."""
    tables = [
        {item["epoch"]: [number(item[part][name]) for name in names] for item in record["epochs"]}
        for record in records
    ]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    values = np.array([[table[epoch] for epoch in common] for table in tables], np.float64)
    return np.array(common, np.float64), values.reshape(len(tables), len(common), len(names)).mean(0).T


def _stack(ax: Axes, epochs: Floats, values: Floats, colours: list[str]) -> None:
    total = values.sum(0)
    share = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    ax.stackplot(epochs, share, colors=colours, linewidth=0)
    ax.set_ylim(0, 1)
    ax.margins(x=0)


def _legend(canvas: Canvas) -> None:
    from matplotlib.patches import Patch

    both = [(name.replace("_", " "), colour) for name, colour in GROUPS.items()]
    both += [(f"{name} term", colour) for name, colour in TERMS.items()]
    handles = [Patch(color=colour) for _, colour in both]
    canvas.legend(handles, [name for name, _ in both], loc="outside lower center", ncols=6, handlelength=1)
