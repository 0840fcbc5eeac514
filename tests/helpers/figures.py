"""What tests of the figures share: a study with holes, and what a drawn figure says."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from ablation.analyse import figures
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.figures.shared import style
from ablation.analyse.verdict.verdict import judge, judged
from ablation.analyse.view import StudyView, study_view
from ablation.records import StudyRecord
from ablation.rng import generator
from helpers.synthetic import focal, grid, with_state

ALL = {figure.name: figure for figure in figures.discover()}


def draw(name: str, view: StudyView) -> Canvas:
    """A figure as the report draws it, not written to any format."""
    with style.house_style():
        return ALL[name].draw(view)


def judged_view(record: StudyRecord, artifacts: RunArtifacts | None = None) -> StudyView:
    """A study as the report's figures see it: with the verdicts in its arms table."""
    verdict = judge(study_view(record), partial=True, generator=generator(0, "figures"))
    return judged(study_view(record, artifacts=artifacts), verdict)


def words(canvas: Canvas) -> str:
    """All texts in a figure, one a line."""
    return "\n".join(item.get_text() for item in canvas.findobj(mpl.text.Text))


def holed(seeds: int) -> StudyRecord:
    """3 alphas x 4 gammas with a diverged and a missing run, and an arm without any value."""
    record = with_state(grid(range(seeds)), focal(0.25, 2)[0], 1, "DIVERGED", "the loss became inf")
    record = with_state(record, focal(0.75, 0.5)[0], 0, "MISSING")
    for seed in range(seeds):
        record = with_state(record, focal(0.25, 1)[0], seed, "DIVERGED")
    return record


@dataclass(frozen=True)
class Rendered:
    """A figure of holed(2): what was drawn, and its bytes in each format."""

    canvas: Canvas
    files: dict[str, bytes]
