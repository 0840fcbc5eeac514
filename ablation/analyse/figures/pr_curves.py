"""Precision against recall at IoU .5, all classes and each."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.average_precision import RECALLS
from ablation.analyse.detections.matching import Matches, precision_curves
from ablation.analyse.figures.shared.artifact_figures import DetectionFigure, Floats, legend, plot_curves
from ablation.analyse.figures.shared.style import WIDTH_IN
from ablation.analyse.view import StudyView

CLASSES = 5
"""As many classes as have a panel of their own: those with the most objects."""


class PrCurves(DetectionFigure):
    name = "pr_curves"
    title = "Precision against recall at IoU .5"
    caption = (
        "Precision at each recall as COCO's AP50 reads it (the best precision at that recall or beyond); the "
        "first panel is the mean over classes, the others single classes with their number of objects, the "
        f"{CLASSES} most frequent at most. Thick lines are means over seeds, {{n}}. The area under a "
        "curve is AP50. Curves that cross mean that the better arm depends on the recall you need. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        matches = {arm.arm: self.matches(view, arm) for arm in arms}
        first = matches[arms[0].arm][0]
        counts = first.objects["category_id"].value_counts()
        classes = sorted(counts.index, key=lambda name: (-counts[name], name))[:CLASSES]
        panels: list[int | None] = [None, *(classes if len(counts) > 1 else [])]
        columns = min(3, len(panels)) if len(panels) != 4 else 4
        rows = -(-len(panels) // columns)
        width = WIDTH_IN if columns > 1 else WIDTH_IN / 2
        canvas = Canvas(figsize=(width, 0.4 + 2.0 * rows + 0.16 * -(-len(arms) // 2)), layout="constrained")
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, panel in zip(grid, panels, strict=False):
            for arm in arms:
                curves = [_precision(detections, panel) for detections in matches[arm.arm]]
                plot_curves(ax, arm, RECALLS, [values for values in curves if values is not None])
            title = "mean over classes" if panel is None else f"{first.classes[panel]} ({counts[panel]})"
            ax.set_title(title, loc="left")
            ax.set(xlim=(0, 1), ylim=(0, 1.02))
            ax.grid()
            ax.set_xlabel("recall")
        for ax in grid[len(panels) :]:
            ax.set_visible(False)
        canvas.supylabel("precision", fontsize=8)
        legend(canvas, arms, columns=2 if columns > 1 else 1)
        return canvas


def _precision(matches: Matches, panel: int | None) -> Floats | None:
    curves = precision_curves(matches)
    if panel is not None:
        return curves.get(panel)
    return np.mean(list(curves.values()), axis=0) if curves else None
