"""False positives per image at fixed recall."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.thresholds import threshold_curve
from ablation.analyse.figures.shared.artifact_figures import DetectionFigure, legend
from ablation.analyse.figures.shared.style import MUTED, WIDTH_IN, series_marker
from ablation.analyse.view import StudyView

RECALLS = (0.5, 0.7, 0.8, 0.9)


class FalsePositives(DetectionFigure):
    name = "false_positives"
    title = "What a recall costs: false positives per image"
    caption = (
        "For each recall (over all classes, IoU .5) the wrong detections per validation image at the highest "
        "score threshold that reaches it; lower is better. Markers are means over the seeds that reach the "
        "recall, small dots the single seeds, {n}; a cross at the top with a number says how many seeds "
        "do not reach it at any threshold. The axis is logarithmic above 0.1. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas = Canvas(figsize=(WIDTH_IN, 2.6 + 0.16 * -(-len(arms) // 2)), layout="constrained")
        ax = canvas.add_subplot()
        step = 0.8 / len(arms)
        for index, arm in enumerate(arms):
            curves = [threshold_curve(matches) for matches in self.matches(view, arm)]
            values = np.array([curve.false_at_recall(RECALLS) for curve in curves])
            for column in range(len(RECALLS)):
                x = column - 0.4 + step * (index + 0.5)
                reached = values[np.isfinite(values[:, column]), column]
                short = len(values) - len(reached)
                ax.plot(np.full(len(reached), x), reached, ".", color=arm.colour, markersize=3, alpha=0.5)
                if reached.size:
                    ax.plot([x], [reached.mean()], series_marker(index), color=arm.colour, markersize=5)
                if short:
                    top = ax.get_xaxis_transform()
                    ax.plot([x], [0.98], "x", color=arm.colour, markersize=4, transform=top)
                    label: dict[str, Any] = {"fontsize": 6, "ha": "center", "va": "top", "transform": top}
                    ax.text(x, 0.93, f"{short}", color=arm.colour, **label)
        for column in range(1, len(RECALLS)):
            ax.axvline(column - 0.5, color=MUTED, linewidth=0.3)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_ylim(0, max(ax.get_ylim()[1], 1.0) * 3)
        ax.set(xlim=(-0.5, len(RECALLS) - 0.5), ylabel="false positives per image", xlabel="recall")
        ax.set_xticks(range(len(RECALLS)), [f"{recall:g}" for recall in RECALLS])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(axis="y")
        legend(canvas, arms)
        return canvas
