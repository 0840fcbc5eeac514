"""The alpha x gamma grid of a study's focal arms, for the figures that plot it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from ablation.analyse.view import StudyView

LOSS_NAME = "focal"


@dataclass(frozen=True)
class Grid:
    """Focal arms by alpha (rows; NaN is null: no weighting, first) and gamma (columns)."""

    alphas: list[float]
    gammas: list[float]
    arms: dict[tuple[float | None, float], pd.Series]

    def at(self, alpha: float, gamma: float) -> pd.Series | None:
        """The arm of a cell, None where the study has none."""
        return self.arms.get((_key(alpha), gamma))


def focal_arms(view: StudyView) -> pd.DataFrame:
    """The rows of the arms table that belong to focal loss and have a gamma."""
    arms = view.arms
    if "loss.gamma" not in arms.columns:
        return arms.iloc[:0]
    return arms[(arms["loss"] == LOSS_NAME) & arms["loss.gamma"].notna()]


def why_no_grid(view: StudyView) -> str | None:
    """None where the focal arms form a grid with at least one value to show, else the reason."""
    arms = focal_arms(view)
    if arms.empty:
        return "the study has no arm of focal loss with a gamma"
    if not (arms["n"] > 0).any():
        return f"no focal arm has a finished run with {view.metric}"
    cells = [(_key(alpha), gamma) for alpha, gamma in zip(_alphas(arms), arms["loss.gamma"], strict=True)]
    for cell in cells:
        same = [arm for arm, place in zip(arms["arm"], cells, strict=True) if place == cell]
        if len(same) > 1:
            return f"the arms {', '.join(same)} have the same alpha and gamma and differ in something else"
    return None


def grid(view: StudyView) -> Grid:
    """The grid; call why_no_grid first."""
    arms = focal_arms(view)
    alphas = _alphas(arms)
    keyed = {
        (_key(alpha), float(row["loss.gamma"])): row
        for alpha, (_, row) in zip(alphas, arms.iterrows(), strict=True)
    }
    numbers = sorted({alpha for alpha in alphas if not math.isnan(alpha)})
    first = [math.nan] if any(math.isnan(alpha) for alpha in alphas) else []
    return Grid(first + numbers, sorted({gamma for _, gamma in keyed}), keyed)


def baseline_row(view: StudyView) -> pd.Series | None:
    """The baseline's row of the arms table, None where there is none or it has no value."""
    rows = view.arms[view.arms["baseline"] & (view.arms["n"] > 0)]
    return None if rows.empty else rows.iloc[0]


def alpha_name(alpha: float) -> str:
    """'none' or the number."""
    return "none" if math.isnan(alpha) else f"{alpha:g}"


def losses_of_runs(arm: pd.Series) -> str:
    """The runs of an arm without a value, by the reason: '1 diverged, 1 missing', or ''."""
    kinds = ("diverged", "failed", "unfinished", "missing")
    return ", ".join(f"{int(arm[f'n_{kind}'])} {kind}" for kind in kinds if arm[f"n_{kind}"])


def _alphas(arms: pd.DataFrame) -> list[float]:
    if "loss.alpha" not in arms.columns:
        return [math.nan] * len(arms)
    return [float(alpha) for alpha in arms["loss.alpha"]]


def _key(alpha: float) -> float | None:
    """NaN is not equal to itself, so it cannot be looked up; None can."""
    return None if math.isnan(alpha) else alpha
