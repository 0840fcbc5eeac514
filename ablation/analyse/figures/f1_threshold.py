"""F1 against the score threshold, and how far each arm's best threshold moves between seeds."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.thresholds import best_threshold, threshold_curve
from ablation.analyse.figures.shared.artifact_figures import DetectionFigure, plot_curves
from ablation.analyse.figures.shared.style import WIDTH_IN, number
from ablation.analyse.view import StudyView

AXIS = np.linspace(0.0, 1.0, 401)


class F1Threshold(DetectionFigure):
    name = "f1_threshold"
    title = "Which score threshold now? F1 at IoU .5"
    caption = (
        "Left: F1 over all classes when detections below the threshold are dropped; thick lines are means "
        "over seeds, {n}. Right: each seed's best threshold (dots), the threshold with the highest mean F1 "
        "over the arm's seeds (bar; it is the score= of the settings to use), and that mean F1. Of equally "
        "good thresholds the middle one is taken. With a flat top a wrong threshold costs little, with a "
        "narrow one much. If the best threshold is not BCE's, comparing both arms at one is unfair. "
        "Chosen and judged on the same validation images, so the F1 is a little too good. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas = Canvas(figsize=(WIDTH_IN, max(2.6, 1.1 + 0.33 * len(arms))), layout="constrained")
        left, right = canvas.subplots(1, 2, width_ratios=(1, 1))
        for row, arm in enumerate(arms):
            curves = [threshold_curve(matches) for matches in self.matches(view, arm)]
            plot_curves(left, arm, AXIS, [curve.f1_at(AXIS) for curve in curves])
            of_seeds = [best_threshold([curve]) for curve in curves]
            scores = [best.score for best in of_seeds if best is not None]
            right.plot(scores, [row] * len(scores), "o", color=arm.colour, markersize=3.5, alpha=0.7)
            if (best := best_threshold(curves)) is not None:
                right.plot([best.score] * 2, [row - 0.3, row + 0.3], color=arm.colour, linewidth=2)
                text = f"at {best.score:.2f}: F1 {number(best.f1)}"
                right.text(1.03, row, text, va="center", fontsize=6.5)
        left.set(xlim=(0, 1), xlabel="score threshold", ylabel="F1")
        left.set_ylim(bottom=0)
        left.grid()
        right.set(xlim=(0, 1), xlabel="best score threshold", ylim=(len(arms) - 0.5, -0.5))
        right.set_yticks(range(len(arms)), [arm.title.replace("\n", ", ") for arm in arms], fontsize=6.5)
        for label, arm in zip(right.get_yticklabels(), arms, strict=True):
            label.set_color(arm.colour)
        right.grid(axis="x")
        return canvas
