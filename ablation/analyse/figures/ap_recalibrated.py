"""AP as it is, and with what the loss does to the objectness undone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.style import BETTER, MUTED, WIDTH_IN, WORSE, signed
from ablation.analyse.view import StudyView

RAW, RECALIBRATED = "val/AP", "val/AP_recalibrated"


class ApRecalibrated(Figure):
    name = "ap_recalibrated"
    title = "AP raw, and with the distortion of the score undone"
    caption = (
        "For each arm AP on the validation images as detections are ranked (hollow) and with score = (true "
        "probability that the objectness stands for) x class probability (filled): means over seeds, small "
        "dots single seeds, {n}; on the right the mean change. The kept detections are the same: "
        "non-maximum suppression saw the raw score. If an arm gains, part of its difference to BCE was "
        "ranking across classes, not detection. BCE cannot change. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        runs = view.runs[view.runs["valid"]]
        if not {RAW, RECALIBRATED} <= set(runs.columns) or runs[RECALIBRATED].notna().sum() == 0:
            return f"no finished run has {RECALIBRATED}"
        return None

    def draw(self, view: StudyView) -> Canvas:
        runs = view.runs[view.runs["valid"] & view.runs[RECALIBRATED].notna()]
        arms = view.arms[view.arms["arm"].isin(set(runs["arm"]))]
        canvas = Canvas(figsize=(WIDTH_IN, 0.8 + 0.26 * len(arms)), layout="constrained")
        ax = canvas.add_subplot()
        edge = ax.get_yaxis_transform()
        for row, arm in enumerate(arms["arm"]):
            of_arm = runs[runs["arm"] == arm]
            raw, recalibrated = (of_arm[name].to_numpy(np.float64) for name in (RAW, RECALIBRATED))
            for values, y in ((raw, row - 0.18), (recalibrated, row + 0.18)):
                ax.plot(values, np.full(len(values), y), ".", color=MUTED, markersize=2.5)
            change = float((recalibrated - raw).mean())
            colour = "black" if abs(change) < 5e-4 else BETTER if change > 0 else WORSE
            ax.plot([raw.mean(), recalibrated.mean()], [row, row], color=colour, linewidth=1.4)
            ax.plot([raw.mean()], [row], "o", markerfacecolor="white", markeredgecolor=colour, markersize=5)
            ax.plot([recalibrated.mean()], [row], "o", color=colour, markersize=4)
            text = f"{signed(change)}, n = {len(of_arm)}"
            ax.text(1.01, row, text, va="center", fontsize=6.5, color=colour, transform=edge)
        settings = zip(arms["baseline"], arms["setting"], strict=True)
        names = ["BCE" if is_baseline else str(setting) for is_baseline, setting in settings]
        ax.set_yticks(range(len(arms)), names)
        ax.set(ylim=(len(arms) - 0.5, -0.5), xlabel="AP (hollow: raw; filled: undone)")
        ax.grid(axis="x")
        return canvas
