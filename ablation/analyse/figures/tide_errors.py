"""The six error types of TIDE: what each costs, and how often it happens."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.detections.tide import TYPES, Errors, errors
from ablation.analyse.figures.shared.artifact_figures import DetectionFigure, PlottedArm, artifacts_of, legend
from ablation.analyse.figures.shared.style import MUTED, WIDTH_IN
from ablation.analyse.view import StudyView


class TideErrors(DetectionFigure):
    name = "tide_errors"
    title = "Which errors: the six types of TIDE"
    caption = (
        "Left: how much AP at IoU .5 would rise if one type of error alone were put right (arXiv 2008.08115; "
        "the gains do not add up). Right: how many detections per image have the error (missed: objects), "
        "of all that were kept, whatever their score; most of them cost nothing, being ranked last. Bars "
        "are means over seeds, {n}, dots the single seeds. A confidence loss should show in background "
        "and missed; in localisation only by way of the ranking. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        height = 0.7 + max(0.11 * len(arms) + 0.1, 0.3) * len(TYPES) + 0.16 * -(-len(arms) // 2)
        canvas = Canvas(figsize=(WIDTH_IN, height), layout="constrained")
        left, right = canvas.subplots(1, 2, sharey=True)
        step = 0.8 / len(arms)
        for index, arm in enumerate(arms):
            errors_of_runs = self._errors(view, arm)
            for row, kind in enumerate(TYPES):
                y = row - 0.4 + step * (index + 0.5)
                costs = np.array([run.cost[kind] for run, _ in errors_of_runs])
                counts = np.array([run.counts[kind] / images for run, images in errors_of_runs])
                for ax, values in ((left, costs), (right, counts)):
                    ax.barh(y, values.mean(), step * 0.85, color=arm.colour, alpha=0.75, linewidth=0)
                    ax.plot(values, np.full(len(values), y), ".", color="black", markersize=1.8)
        for ax in (left, right):
            for row in range(1, len(TYPES)):
                ax.axhline(row - 0.5, color=MUTED, linewidth=0.3)
            ax.grid(axis="x")
        left.set_yticks(range(len(TYPES)), TYPES)
        left.set(ylim=(len(TYPES) - 0.5, -0.5), xlabel="gain in AP50 if put right")
        right.set_xscale("symlog", linthresh=1)
        right.set_xlim(left=0)
        right.xaxis.set_major_formatter("{x:g}")
        right.set_xlabel("errors per image (logarithmic above 1)")
        legend(canvas, arms)
        return canvas

    def _errors(self, view: StudyView, arm: PlottedArm) -> list[tuple[Errors, int]]:
        """The errors of each run, and its number of images."""
        artifacts = artifacts_of(view)
        return [
            (artifacts.made("tide", run_id, partial(errors, matches)), matches.images)
            for (_, run_id), matches in zip(arm.runs, self.matches(view, arm), strict=True)
        ]
