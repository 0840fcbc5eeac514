"""Cumulative, normalised, sorted loss of each arm on its own model."""

from __future__ import annotations

from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.artifact_figures import DiagnosticFigure, legend, plot_curves
from ablation.analyse.figures.shared.cdf import curves, hardest, panels
from ablation.analyse.view import StudyView


class LossCdf(DiagnosticFigure):
    name = "loss_cdf"
    title = "How much of its loss each arm leaves in easy cells"
    files = ("diagnostics/loss_cdf.json",)
    caption = (
        "Each arm's confidence loss on its own final model, over the cells of the validation images: cells "
        "sorted by their loss, their cumulative share of it; thick lines are means over seeds, {n}. A curve "
        "that stays at 0 and rises at the end leaves the loss to the hardest cells; the diagonal would "
        "share it equally. On the right the same for negatives from the hard end: the height at .01 is what "
        "the hardest 1 % hold. Model and loss both differ between arms here. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas, axes = panels(-(-len(arms) // 2))
        for arm in arms:
            records = self.records(view, arm)
            of_own_model = [record["own"] for record in records]
            for ax, part in zip(axes, ("positives", "negatives", "negatives"), strict=True):
                x, shares = curves(of_own_model, records[0]["fractions"], part)
                plot_curves(ax, arm, *(hardest(x, shares) if ax is axes[2] else (x, shares)))
        legend(canvas, arms)
        return canvas
