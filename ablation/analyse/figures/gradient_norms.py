"""How large single cells' gradients are at the end of training, and which cells the sum comes from."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.run_files import number
from ablation.analyse.figures.shared.artifact_figures import (
    DiagnosticFigure,
    coarser,
    legend,
    middles,
    plot_curves,
    probability_axis,
    shares,
)
from ablation.analyse.figures.shared.style import WIDTH_IN, plain_powers
from ablation.analyse.view import StudyView

COARSER = 4
"""Bins of the files that are drawn as one: half a decade, and one unit of the logit."""


class GradientNorms(DiagnosticFigure):
    name = "gradient_norms"
    title = "The final model's confidence gradient, cell by cell"
    files = ("diagnostics/gradient_norms.json",)
    caption = (
        "Left: share of cells by the size of their own gradient |dL/dz|, the arm's gain included (both axes "
        "logarithmic; sizes below 1e-10 in the first bin). Middle and right: which cells the sum of |dL/dz| "
        "comes from, by how wrong they are, |p - y| (the gradient norm of arXiv 1811.05181); cells on the "
        "left of a panel are nearly right, on the right nearly certain of the opposite. Means over seeds, "
        "{n}; on training images, with the final weights. A factor on the loss moves the left panel "
        "sideways and leaves the others as they are. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas = Canvas(figsize=(WIDTH_IN, 2.5 + 0.16 * -(-len(arms) // 2)), layout="constrained")
        left, middle, right = canvas.subplots(1, 3)
        for arm in arms:
            records = self.records(view, arm)
            sizes = 10 ** middles(records[0]["log10_edges"][::COARSER])
            counts = [np.add(r["positives"]["norms"], r["negatives"]["norms"]) for r in records]
            plot_curves(left, arm, sizes, [coarser(shares(values), COARSER) for values in counts])
            wrong = middles(records[0]["logit_edges"][::COARSER])
            for ax, part in ((middle, "positives"), (right, "negatives")):
                sums = [[number(value) for value in record[part]["gradient"]] for record in records]
                plot_curves(ax, arm, wrong, [coarser(shares(values), COARSER) for values in sums])
        left.set(xscale="log", yscale="log", xlabel="|dL/dz| of a cell", ylabel="share of cells per bin")
        left.set_ylim(1e-4, 1)
        plain_powers(left.xaxis, left.yaxis)
        left.set_title("all cells", loc="left")
        for ax, part in ((middle, "positives"), (right, "negatives")):
            ax.set_title(part, loc="left")
            ax.set_xlabel("how wrong: |p - y|")
            ax.set_xlim(-9, 7)
            probability_axis(ax, 0.0005)
            ax.set_ylim(bottom=0)
        middle.set_ylabel("share of the gradient per bin")
        legend(canvas, arms)
        return canvas
