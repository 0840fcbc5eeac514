"""Figures drawn from the files that runs left: which arms they show, and how.

A figure of 25 arms cannot be read, so few are chosen: the baseline, the best arm of each loss, and then
arms evenly spaced through the ranking down to the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from ablation.analyse.detections.matching import Matches, matches_of
from ablation.analyse.detections.run_files import DETECTIONS, GROUND_TRUTH, RunArtifacts
from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.style import BASELINE, series_colour, series_dash
from ablation.analyse.view import StudyView

Floats = NDArray[np.float64]

MOST = 6
"""As many arms as a figure shows."""
PROBABILITIES = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class PlottedArm:
    """An arm in a figure.

    Attributes:
        arm, label: its name, and its setting for people.
        runs: (seed, run_id) of those that count and have the figure's files.
        planned: how many runs there should be.
        colour, style: its colour and its line style.
    """

    arm: str
    label: str
    runs: tuple[tuple[int, str], ...]
    planned: int
    colour: str
    style: str

    @property
    def count(self) -> str:
        """How many runs stand behind it: 'n = 2', 'n = 1 of 2'."""
        return f"n = {len(self.runs)}" + (f" of {self.planned}" if self.planned > len(self.runs) else "")

    @property
    def legend(self) -> str:
        """One line for a legend."""
        return f"{self.label} ({self.count})"

    @property
    def title(self) -> str:
        """Two or three lines for the top of a narrow panel."""
        return f"{self.label.replace(' (', chr(10), 1).rstrip(')')}\n{self.count}"


def plotted_arms(view: StudyView, files: Sequence[str] = (), most: int = MOST) -> list[PlottedArm]:
    """The chosen arms, the baseline first, then in the order of the arms table.

    Args:
        files: what a run must have left to be counted, and an arm to be chosen.
    """
    runs: dict[str, list[tuple[int, str]]] = {}
    counted = view.runs[view.runs["valid"]].sort_values(["arm", "seed"], kind="stable")
    for arm, seed, run_id in zip(counted["arm"], counted["seed"], counted["run_id"], strict=True):
        if all(view.artifacts is not None and view.artifacts.has(name, run_id) for name in files):
            runs.setdefault(str(arm), []).append((int(seed), str(run_id)))
    arms = view.arms[view.arms["arm"].isin(list(runs))]
    columns = zip(arms["arm"], arms["loss"], arms["mean"], strict=True)
    chosen = _chosen([(str(arm), str(loss), float(mean)) for arm, loss, mean in columns], view.baseline, most)
    plotted: list[PlottedArm] = []
    for arm, setting, planned in zip(arms["arm"], arms["setting"], arms["n_planned"], strict=True):
        if arm not in chosen:
            continue
        is_baseline = arm == view.baseline
        index = sum(before.arm != view.baseline for before in plotted)
        plotted.append(
            PlottedArm(
                arm=str(arm),
                label="BCE" if is_baseline else str(setting),
                runs=tuple(runs[str(arm)]),
                planned=int(planned),
                colour=BASELINE if is_baseline else series_colour(index),
                style="-" if is_baseline else series_dash(index),
            )
        )
    return plotted


def _chosen(arms: list[tuple[str, str, float]], baseline: str | None, most: int) -> set[str]:
    """Names out of (arm, loss, mean)."""
    ranked = sorted(arms, key=lambda item: (-np.nan_to_num(item[2], nan=-1.0), item[0]))
    chosen = [arm for arm, _, _ in ranked if arm == baseline]
    losses: set[str] = set()
    for arm, loss, _ in ranked:
        if arm not in chosen and loss not in losses and len(chosen) < most:
            chosen.append(arm)
            losses.add(loss)
    rest = [arm for arm, _, _ in ranked if arm not in chosen]
    places = min(most - len(chosen), len(rest))
    # From the end, so that the worst is always among them.
    chosen += [rest[len(rest) - 1 - round(i * len(rest) / places)] for i in range(places)]
    return set(chosen)


class ArtifactFigure(Figure):
    """A figure that needs files of the runs.

    Attributes:
        files: what each run must have left, such as "diagnostics/gradients.json".
    """

    files: ClassVar[tuple[str, ...]]

    def applies(self, view: StudyView) -> str | None:
        """Needs one arm with a finished run that left the files."""
        if view.artifacts is None:
            return "the files of the runs were not loaded"
        if not self.arms(view):
            return f"no finished run left {' and '.join(self.files)}"
        return None

    def arms(self, view: StudyView) -> list[PlottedArm]:
        """The arms that are shown."""
        return plotted_arms(view, self.files)

    def caption_for(self, view: StudyView) -> str:
        """Adds which arms are shown, where not all are."""
        caption = super().caption_for(view)
        total, plotted = int((view.arms["n"] > 0).sum()), len(self.arms(view))
        if 0 < plotted < total:
            caption += (
                f" Shown: {plotted} of {total} arms (the baseline, the best of each loss by {view.metric}, "
                "and arms spread through the ranking down to the worst)."
            )
        return caption


class DiagnosticFigure(ArtifactFigure):
    """A figure of one JSON file that each run left."""

    def records(self, view: StudyView, arm: PlottedArm) -> list[dict[str, Any]]:
        """The file's content for each run of the arm."""
        records = [artifacts_of(view).json(self.files[0], run_id) for _, run_id in arm.runs]
        return [record for record in records if record is not None]


class DetectionFigure(ArtifactFigure):
    """A figure of the runs' detections on the validation images, matched at IoU .5."""

    files: ClassVar[tuple[str, ...]] = (DETECTIONS, GROUND_TRUTH)

    def matches(self, view: StudyView, arm: PlottedArm) -> list[Matches]:
        """Of each run of the arm."""
        matches = [matches_of(artifacts_of(view), run_id) for _, run_id in arm.runs]
        return [detections for detections in matches if detections is not None]


def artifacts_of(view: StudyView) -> RunArtifacts:
    """The view's artifacts; a figure that got as far as drawing has one."""
    assert view.artifacts is not None
    return view.artifacts


def plot_curves(ax: Axes, arm: PlottedArm, x: Floats, curves: Sequence[Floats], **options: Any) -> None:
    """The mean of an arm's curves over its seeds, thick, and each of them, thin."""
    line = {"color": arm.colour, "linestyle": arm.style, **options}
    if len(curves) > 1:
        for values in curves:
            ax.plot(x, values, linewidth=0.5, alpha=0.4, **line)
    if len(curves):
        mean = np.mean(np.stack(list(curves)), axis=0)
        ax.plot(x, mean, linewidth=2.0 if arm.colour == BASELINE else 1.4, **line)


def legend(canvas: Canvas, arms: Sequence[PlottedArm], columns: int = 2) -> None:
    """One legend for all panels, below them."""
    from matplotlib.lines import Line2D

    handles = []
    for arm in arms:
        line = Line2D([], [], color=arm.colour, linewidth=2.0 if arm.colour == BASELINE else 1.4)
        line.set_linestyle(arm.style)  # type: ignore[arg-type]
        handles.append(line)
    texts = [arm.legend for arm in arms]
    canvas.legend(handles, texts, loc="outside lower center", ncols=columns, handlelength=2.2)


def probability_axis(ax: Axes, low: float = 0.0001, high: float = 0.999) -> None:
    """Label an x axis in logits with the probabilities they stand for."""
    ticks = [p for p in PROBABILITIES if low <= p <= high]
    ax.set_xticks([float(np.log(p / (1 - p))) for p in ticks], [f"{p:g}" for p in ticks])
    ax.tick_params(axis="x", labelrotation=60)


def middles(edges: Sequence[float]) -> Floats:
    """The middle of each bin."""
    values = np.asarray(edges, np.float64)
    return (values[1:] + values[:-1]) / 2


def coarser(values: Floats, factor: int) -> Floats:
    """Sums of `factor` neighbouring bins each; their number must be a multiple of it."""
    sums: Floats = values.reshape(-1, factor).sum(1)
    return sums


def shares(counts: Sequence[float]) -> Floats:
    """Counts as shares of their sum; all 0 where there is nothing."""
    values = np.asarray(counts, np.float64)
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)
