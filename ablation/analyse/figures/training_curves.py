"""The metric over the epochs, per arm, BCE in every panel."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.base import Figure
from ablation.analyse.figures.shared.style import BASELINE, WIDTH_IN, series_colour, series_dash
from ablation.analyse.tables import table
from ablation.analyse.tables.settings import LOSS, format_setting
from ablation.analyse.view import StudyView

ONE_PANEL = 6
"""As many arms besides the baseline as one panel can show; more are spread over panels."""


class TrainingCurves(Figure):
    name = "training_curves"
    title = "Training: the metric on validation images over the epochs"
    caption = (
        "Thick lines are means over seeds of {metric} (at the epochs that all finished seeds of the arm "
        "have), thin lines the single seeds, black the plain BCE in every panel; {n}. Look for arms that "
        "were still rising when training ended: they may only be slower, not worse. Total training "
        "loss is deliberately not compared, for each loss measures another quantity. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        points = table.curves(view.study, view.metric)
        if points.empty:
            return f"no finished run has a history of {view.metric}"
        if points.groupby(["arm", "seed"]).size().max() < 2:
            return f"{view.metric} was measured at one epoch only, and one point makes no curve"
        return None

    def draw(self, view: StudyView) -> Canvas:
        points = table.curves(view.study, view.metric)
        panels = _panels(view.arms[view.arms["arm"] != view.baseline])
        # One label, one colour: a setting looks the same in every panel.
        labels = list(dict.fromkeys(label for _, arms in panels for _, label in arms))
        height = 0.5 + (1.65 if len(panels) > 1 else 2.7) * len(panels)
        canvas = Canvas(figsize=(WIDTH_IN, height), layout="constrained")
        grid = canvas.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, (title, arms) in zip(grid, panels, strict=True):
            for arm, label in arms:
                index = labels.index(label)
                _curve(ax, view, points, arm, label, series_colour(index), series_dash(index), width=1.5)
            if view.baseline is not None and (points["arm"] == view.baseline).any():
                _curve(ax, view, points, view.baseline, "BCE", BASELINE, "-", width=2.2)
            ax.set_title(title, loc="left")
            ax.set_ylabel(view.metric)
            ax.grid(axis="y")
            ax.margins(x=0.02)
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), handlelength=1.8)
        grid[-1].set_xlabel("epoch")
        return canvas


def _panels(arms: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """Panels of (title, [(arm, label)]): one, or one per value of the setting with the fewest values.

    A dozen colours in one panel cannot be told apart; four or five can.
    """
    everything = [(str(arm), str(setting)) for arm, setting in zip(arms["arm"], arms["setting"], strict=True)]
    settings = [name for name in table.setting_columns(arms) if arms[name].nunique(dropna=False) > 1]
    if len(arms) <= ONE_PANEL or not settings:
        return [("", everything)]
    by = min(settings, key=lambda name: (arms[name].nunique(dropna=False), name))
    panels = []
    groups: Any = arms.groupby(["loss", by], dropna=False, sort=True)
    for (loss, value), group in groups:
        word = format_setting(None if pd.isna(value) else value)
        labels = [_rest(str(setting), by.removeprefix(LOSS)) for setting in group["setting"]]
        title = f"{loss}, {by.removeprefix(LOSS)} = {word}"
        panels.append((title, [(str(arm), label) for arm, label in zip(group["arm"], labels, strict=True)]))
    return sorted(panels, key=lambda panel: panel[0].endswith("= none"), reverse=True)


def _rest(setting: str, name: str) -> str:
    """The setting without what the panel's title says: 'focal (a=1, b=2)' without a is 'b=2'."""
    head, _, inside = setting.partition(" (")
    parts = [part for part in inside.rstrip(")").split(", ") if part and not part.startswith(f"{name}=")]
    return ", ".join(parts) or head


def _curve(
    ax: Axes,
    view: StudyView,
    points: pd.DataFrame,
    arm: str,
    label: str,
    colour: str,
    style: str,
    width: float,
) -> None:
    curves = points[points["arm"] == arm].pivot(index="epoch", columns="seed", values="value")
    planned = int(view.arms.loc[view.arms["arm"] == arm, "n_planned"].iloc[0])
    if curves.empty:
        # Named in the legend, so that an arm that diverged does not just vanish.
        ax.plot(
            [], [], color=colour, linewidth=width, linestyle=style, label=f"{label}: 0 of {planned} finished"
        )
        return
    for seed in curves.columns:
        line = curves[seed].dropna()
        ax.plot(line.index, line, color=colour, linewidth=0.6, alpha=0.45, linestyle=style, zorder=2)
    mean = curves.dropna().mean(axis=1)
    count = f"n = {curves.shape[1]}" + (f" of {planned}" if planned > curves.shape[1] else "")
    label = f"{label} ({count})"
    ax.plot(mean.index, mean, color=colour, linewidth=width, linestyle=style, label=label, zorder=3)
