"""What objectness the final models give to positives and to negatives."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.artifact_figures import (
    DiagnosticFigure,
    middles,
    probability_axis,
    shares,
)
from ablation.analyse.figures.shared.style import WIDTH_IN
from ablation.analyse.view import StudyView

PARTS = {"negatives": "#D55E00", "positives": "#0072B2"}


class ObjectnessHistograms(DiagnosticFigure):
    name = "objectness_histograms"
    title = "Objectness at positives and at negatives"
    files = ("diagnostics/objectness.json",)
    caption = (
        "Share of the cells of the validation images by the objectness that the final model gives them, "
        "means over seeds, {n}; cells are labelled as in training, ignored ones left out. The axis is "
        "linear in the logit, so that .001 and .999 are as far from .5. The less the two hills overlap the "
        "better the arm tells objects from background; hills nearer to .5 are not worse by themselves, "
        "for focal loss draws scores to the middle. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        columns = min(3, len(arms))
        rows = -(-len(arms) // columns)
        canvas = Canvas(figsize=(WIDTH_IN, 0.5 + 1.75 * rows), layout="constrained")
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, arm in zip(grid, arms, strict=False):
            records = self.records(view, arm)
            for name, colour in PARTS.items():
                values = np.mean([shares(record[name]) for record in records], axis=0)
                edges = records[0]["logit_edges"]
                ax.stairs(values, edges, fill=True, color=colour, alpha=0.35)
                ax.stairs(values, edges, color=colour, linewidth=1.0, label=name)
                median = middles(edges)[int(np.searchsorted(np.cumsum(values), 0.5))]
                ax.axvline(median, color=colour, linewidth=0.8, linestyle=":")
            ax.set_title(arm.title.replace("\n", ", "), fontsize=7)
            ax.set_xlim(-11, 8)
            probability_axis(ax)
        for index, ax in enumerate(grid):
            ax.set_visible(index < len(arms))
            # Where the panel below is empty, its axis is this one's.
            ax.tick_params(labelbottom=index + columns >= len(arms))
        grid[0].set_ylim(bottom=0)
        grid[0].legend(loc="upper right")
        canvas.supxlabel("objectness (dotted: median)", fontsize=8)
        canvas.supylabel("share of cells per bin", fontsize=8)
        return canvas
