"""Which probability an arm's objectness stands for."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy.special import expit, logit

from ablation.analyse.detections.calibration import Inversion
from ablation.analyse.figures.shared.artifact_figures import DiagnosticFigure, legend, probability_axis
from ablation.analyse.figures.shared.style import MUTED, WIDTH_IN
from ablation.analyse.view import StudyView

LOGITS = np.linspace(-8, 8, 321)


class ScoreInversion(DiagnosticFigure):
    name = "score_inversion"
    title = "What an objectness means under each loss"
    files = ("diagnostics/score_inversion.json",)
    caption = (
        "The objectness that minimises each arm's loss where an object is truly there with the probability "
        "on the vertical axis, left in plain and right in logit scale; from the loss alone, not from data, "
        "so seeds ({n}) agree. BCE lies on the diagonal: its score is a probability. Focal loss says .11 for "
        "a true .01 and .79 for .99 at alpha .25, gamma 2: every threshold tuned for BCE is wrong for it. "
        "Losses that look at the box are taken at an IoU of 1. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        canvas = Canvas(figsize=(WIDTH_IN, 3.1 + 0.16 * -(-len(arms) // 2)), layout="constrained")
        plain, logits = canvas.subplots(1, 2)
        scores = expit(LOGITS)
        plain.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
        logits.plot([-8, 8], [-8, 8], color=MUTED, linewidth=0.7, linestyle=":")
        for arm in arms:
            eta = Inversion(self.records(view, arm)[0])(scores)
            width = 2.0 if arm.label == "BCE" else 1.4
            inside = (eta > 1e-4) & (eta < 1 - 1e-4)
            line = {"color": arm.colour, "linestyle": arm.style, "linewidth": width}
            plain.plot(scores, eta, **line)
            logits.plot(LOGITS[inside], logit(eta[inside]), **line)
        plain.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        logits.set(xlim=(-8, 8), ylim=(-8, 8), aspect="equal")
        probability_axis(logits, 0.001)
        ticks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
        logits.set_yticks([float(logit(p)) for p in ticks], [f"{p:g}" for p in ticks])
        for ax in (plain, logits):
            ax.grid()
            ax.set(xlabel="objectness", ylabel="true probability it stands for")
        legend(canvas, arms)
        return canvas
