"""Reliability diagram: do detections with a score of s turn out right in s of the cases?"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from ablation.analyse.detections.calibration import (
    Inversion,
    Scheme,
    calibration_error,
    recalibrated_scores,
    reliability,
)
from ablation.analyse.figures.shared.artifact_figures import DetectionFigure, Floats, PlottedArm, artifacts_of
from ablation.analyse.figures.shared.style import MUTED, WIDTH_IN, number
from ablation.analyse.view import StudyView

INVERSION = "diagnostics/score_inversion.json"
FEW = 20
RAW, RECALIBRATED = "#0072B2", "#D55E00"

Scored = list[tuple[Floats, NDArray[np.bool_]]]
"""Scores and whether each detection is right, for each run."""


class Reliability(DetectionFigure):
    name = "reliability"
    title = "Reliability of the scores, as they are and with the loss's distortion undone"
    files = (*DetectionFigure.files, INVERSION)
    caption = (
        "Detections of all seeds of an arm ({n}) in ten bins of equal width: mean score against the share "
        "that is right (matches an object at IoU .5; duplicates are wrong). On the diagonal a score is a "
        f"probability; above it the detector is too modest. Hollow points hold fewer than {FEW} detections. "
        "Orange: the same detections with score = (true probability that the loss's objectness stands for) "
        "x class probability. D-ECE: mean distance from the diagonal, weighted by detections, over 10 bins "
        "of equal width / of equal numbers of detections; mean over seeds. Every detection that was kept "
        "counts, so the many with low scores weigh most. {held}"
    )

    def draw(self, view: StudyView) -> Canvas:
        arms = self.arms(view)
        columns = min(3, len(arms))
        rows = -(-len(arms) // columns)
        canvas = Canvas(figsize=(WIDTH_IN, 0.3 + 2.45 * rows), layout="constrained")
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, arm in zip(grid, arms, strict=False):
            ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
            lines = [arm.title.replace("\n", ", ")]
            for name, scored, colour, mark in zip(
                ("score", "undone"), self._scored(view, arm), (RAW, RECALIBRATED), ("o", "s"), strict=True
            ):
                _points(ax, scored, colour, mark, name)
                lines.append(f"D-ECE {name}: {_mean_error(scored, 'width')} / {_mean_error(scored, 'mass')}")
            ax.set_title("\n".join(lines), fontsize=6.5)
            ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for index, ax in enumerate(grid):
            ax.set_visible(index < len(arms))
            # Where the panel below is empty, its axis is this one's.
            ax.tick_params(labelbottom=index + columns >= len(arms))
        grid[0].legend(loc="upper left", handlelength=1.4)
        canvas.supxlabel("mean score of the bin", fontsize=8)
        canvas.supylabel("share of the bin that is right", fontsize=8)
        return canvas

    def _scored(self, view: StudyView, arm: PlottedArm) -> tuple[Scored, Scored]:
        """As the detections are, and with the distortion undone."""
        raw, recalibrated = [], []
        for (_, run_id), matches in zip(arm.runs, self.matches(view, arm), strict=True):
            right = matches.counted["matched"].to_numpy()
            raw.append((matches.counted["score"].to_numpy(), right))
            record = artifacts_of(view).json(INVERSION, run_id)
            assert record is not None
            recalibrated.append((recalibrated_scores(matches, Inversion(record)), right))
        return raw, recalibrated


def _mean_error(scored: Scored, scheme: Scheme) -> str:
    """D-ECE for people, the mean over the runs."""
    tables = [reliability(scores, right, scheme=scheme) for scores, right in scored]
    return number(float(np.mean([calibration_error(table) for table in tables])))


def _points(ax: Axes, scored: Scored, colour: str, mark: str, name: str) -> None:
    scores, right = (np.concatenate(column) for column in zip(*scored, strict=True))
    table = reliability(scores, right)
    few = (table["n"] < FEW).to_numpy()
    ax.plot(table["score"][~few], table["precision"][~few], color=colour, linewidth=1.0, label=name)
    for rows, face in ((~few, colour), (few, "white")):
        ax.plot(
            table["score"][rows],
            table["precision"][rows],
            linestyle="none",
            marker=mark,
            markersize=3.5,
            markerfacecolor=face,
            markeredgecolor=colour,
            markeredgewidth=0.8,
        )
