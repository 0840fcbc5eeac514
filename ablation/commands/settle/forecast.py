"""`ablation plan settle ...`: what a settle would take, from simulated studies of its own design.

Studies are simulated with one arm of the other losses better than all others by nothing, by one margin and by
two, and normal noise of independent runs. Their exploration and their looks are made by the code that
decides in a real one. How many runs it takes depends on the margin in units of the spread of a paired
difference: that is taken from finished runs of the same configurations, else assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablation.analyse.statistics.sequential import outcomes
from ablation.commands.settle.design import SettleDesign
from ablation.commands.settle.exploration import (
    BCE,
    KEEP_FIRST,
    MOST_SEEDS,
    OTHERS,
    difference_spread,
    explore,
)
from ablation.errors import StoreError
from ablation.study.execute import Prepared
from ablation.study.pace import clock
from ablation.tracking.run_folder import RunFolder

STUDIES = 400
"""Simulated for each row: the standard error of a share is at most 2.5 points."""
EFFECTS = (0.0, 1.0, 2.0)
"""True differences, in margins."""
ASSUMED = (1.0, 1.5)
"""The margin in standard deviations of a paired difference, where no run tells the spread."""


_WIDTHS = (16, 8, 20, 20)


@dataclass(frozen=True)
class Expected:
    """What simulated studies with one true difference took.

    Attributes:
        effect: the true difference, in margins.
        decided: share that ended with a verdict of better, worse or equivalent.
        runs, most: mean, and the 95th percentile.
    """

    effect: float
    decided: float
    runs: float
    most: float


def simulated(design: SettleDesign, margin_sd: float, effect: float, studies: int = STUDIES) -> Expected:
    """Simulate the design.

    Args:
        margin_sd: the margin in standard deviations of a paired difference, > 0.
        effect: by which one arm is better, in margins.
    """
    rng = np.random.default_rng(0)
    sequential, last = design.sequential, design.looks[-1]
    shift = {arm: 0.0 for arms in design.arms.values() for arm in arms}
    shift[design.arms[OTHERS][0]] = effect * margin_sd
    runs, decided = np.empty(studies), np.empty(studies, bool)
    for study in range(studies):
        noise = rng.standard_normal((len(shift), MOST_SEEDS)) * math.sqrt(0.5)
        results: dict[tuple[str, int], float | None] = {
            (arm, seed): float(mean + noise[row, place])
            for row, (arm, mean) in enumerate(shift.items())
            for place, seed in enumerate(design.explore_seeds)
        }
        state = explore(design.arms, design.explore_seeds, results)
        explored = sum(len(arms) for entry in state.rounds for arms in entry.arms.values())
        true = shift[state.finalists[OTHERS]] - shift[state.finalists[BCE]]
        end = outcomes(true + rng.standard_normal((1, last)), sequential, margin_sd, state.spread)
        runs[study] = explored + 2 * design.looks[int(end.look[0])]
        decided[study] = math.isfinite(float(end.decided[0]))
    return Expected(effect, float(decided.mean()), float(runs.mean()), float(np.quantile(runs, 0.95)))


def most_runs(design: SettleDesign) -> int:
    """The largest number of runs that the design can take."""
    explored = 0
    for arms in design.arms.values():
        if len(arms) > 1:
            stay = max(2, math.ceil(KEEP_FIRST * len(arms)))
            explored += len(arms) + (MOST_SEEDS - 1) * stay
    return explored + 2 * design.looks[-1]


def known_spread(out: Path, design: SettleDesign, runs: Sequence[Prepared]) -> tuple[float, int]:
    """Standard deviation of a paired difference, from finished runs of these keys in any study below `out`.

    Returns:
        (standard deviation, runs it is made from); NaN and 0 where there are too few.
    """
    keys = {run.key: (str(run.config.arm), run.config.seed) for run in runs}
    folders = {f"seed{seed}-{key[:8]}": key for key, (_, seed) in keys.items()}
    results: dict[tuple[str, int], float | None] = {}
    for path in sorted(out.glob("*/*/seed*-*/DONE")):
        key = folders.get(path.parent.name)
        value = None if key is None else _final(RunFolder(path.parent), key, design.metric)
        if key is not None and value is not None:
            results[keys[key]] = value
    spread = difference_spread(design.arms, design.explore_seeds, results)
    return (math.sqrt(spread.variance), len(results)) if spread.variance > 0 else (math.nan, 0)


def _final(folder: RunFolder, key: str, metric: str) -> float | None:
    try:
        if folder.state != "FINISHED" or folder.read_json("run.json").get("key") != key:
            return None
        values = [line["metrics"][metric] for line in folder.metrics() if metric in line["metrics"]]
    except (StoreError, OSError):
        return None
    return float(values[-1]) if values and math.isfinite(values[-1]) else None


def forecast_text(
    design: SettleDesign, spread: tuple[float, int], run_s: Mapping[str, float | None], slots: int
) -> list[str]:
    """Lines for a terminal.

    Args:
        spread: as known_spread returns it.
        run_s: arm -> seconds that one of its runs takes; None: not known.
        slots: runs at a time.
    """
    sides = ", ".join(f"{len(arms)} of {name}" for name, arms in _named(design))
    looks = ", ".join(map(str, design.looks))
    lines = [
        f"settle {design.study}: {sides}; margin {design.margin:g} of {design.metric}",
        f"       1. exploration: {_exploration(design)}",
        f"       2. decision: the finalists on fresh seeds, looks at {looks} pairs",
        "       3. report; the test split is read once, at the verdict",
    ]
    sd, count = spread
    if count:
        sizes = [design.margin / sd]
        lines.append(f"spread standard deviation of a paired difference {sd:.4f}, from {count} finished runs")
    else:
        sizes = list(ASSUMED)
        lines.append(
            "spread not known: no two finished runs of an arm with this configuration; assumed below"
        )
    known = [seconds for seconds in run_s.values() if seconds is not None]
    each = sum(known) / len(known) / slots if known and len(known) == len(run_s) else None
    for size in sizes:
        lines.append(f"runs   where the margin is {size:.2g} standard deviations:")
        lines.append(_row("true difference", "decides", "runs expected", "95 % at most"))
        for effect in EFFECTS:
            row = simulated(design, size, effect)
            name = "none" if not effect else f"{effect:g} margin{'s' * (effect > 1)}"
            lines.append(_row(name, f"{row.decided:.0%}", _runs(row.runs, each), _runs(row.most, each)))
    lines.append(f"       at most {_runs(most_runs(design), each)}, whatever the runs show")
    if each is None:
        lines.append("       hours unknown: no earlier run of this shape; measure=true times real steps")
    return lines


def _row(*cells: str) -> str:
    return "       " + "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _named(design: SettleDesign) -> list[tuple[str, list[str]]]:
    return [("other losses", design.arms[OTHERS]), ("BCE", design.arms[BCE])]


def _exploration(design: SettleDesign) -> str:
    several = [arms for arms in design.arms.values() if len(arms) > 1]
    if not several:
        return "none, each side has one arm"
    return (
        f"{sum(map(len, several))} arms on one seed, then the best two fifths of each side on up to "
        f"{MOST_SEEDS - 1} more"
    )


def _runs(runs: float, each_s: float | None) -> str:
    return f"{runs:.0f} runs" + ("" if each_s is None else f", {clock(runs * each_s)}")
