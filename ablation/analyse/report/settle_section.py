"""The section of a report on how a settle came to its answer: rounds, looks, cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure

from ablation.analyse.figures.shared import style
from ablation.analyse.figures.shared.base import save
from ablation.analyse.figures.shared.settle_figures import (
    ExploredArm,
    draw_exploration,
    draw_looks,
)
from ablation.analyse.report.drawn_figures import write_pictures
from ablation.analyse.report.formats import Table
from ablation.analyse.report.html import PathPart, picture
from ablation.analyse.report.settle_path import SIDES, SettlePath
from ablation.analyse.verdict.look_outcome import Look

BECAME = "what became of it"
EXPLORED, LOOKED = "settle_exploration", "settle_looks"


@dataclass(frozen=True)
class PathSection:
    """The section, and the files of its pictures."""

    parts: tuple[PathPart, ...] = ()
    files: tuple[Path, ...] = ()


def settle_section(path: SettlePath, folder: Path) -> PathSection:
    """The section of this path; its pictures are written into `folder`."""
    parts: list[PathPart] = []
    files: list[Path] = []
    if path.rounds:
        drawn = _write(folder / EXPLORED, lambda: draw_exploration(explored_arms(path), path.metric))
        files += drawn
        parts.append(_exploration(path, drawn))
    if path.looks and any(math.isfinite(look.difference) for look in path.looks):
        drawn = _write(folder / LOOKED, lambda: _drawn_looks(path))
        files += drawn
        parts.append(_decision(path, drawn))
    parts.append(PathPart("Cost", tuple(_cost(path))))
    return PathSection(tuple(parts), tuple(files))


def _write(stem: Path, draw: Callable[[], matplotlib.figure.Figure]) -> tuple[Path, ...]:
    with style.house_style():
        contents = save(draw())
    return write_pictures(stem, {str(kind): content for kind, content in contents.items()})


def explored_arms(path: SettlePath) -> list[ExploredArm]:
    """Every arm with its values, by side; those that stayed longest first."""
    arms = []
    for side in SIDES:
        for arm in path.rounds[0].arms.get(side, []):
            rounds = [entry for entry in path.rounds if arm in entry.values]
            left = next((entry for entry in path.rounds if arm in entry.left), None)
            stays = path.finalists.get(side) == arm or (not path.finalists and left is None)
            end = "finalist" if path.finalists.get(side) == arm else "goes on" if stays else "not the leader"
            if left is not None:
                end = f"out after round {left.number}: {left.left[arm]}"
            values = tuple(entry.values[arm] for entry in rounds)
            arms.append(ExploredArm(arm, side, values, end, stays))
    order = {side: place for place, side in enumerate(SIDES)}
    return sorted(arms, key=lambda arm: (order[arm.side], not arm.stays, -len(arm.values), -_mean(arm)))


def _cells(arm: ExploredArm, rounds: int) -> list[str]:
    """One cell for each round; empty where it was not trained or diverged."""
    texts = ["" if value is None else style.number(value) for value in arm.values]
    return texts + [""] * (rounds - len(texts))


def _mean(arm: ExploredArm) -> float:
    finished = [value for value in arm.values if value is not None]
    return sum(finished) / len(finished) if finished else -math.inf


def _exploration(path: SettlePath, files: tuple[Path, ...]) -> PathPart:
    rounds = len(path.rounds)
    runs = sum(len(entry.values) for entry in path.rounds)
    text = (
        f"{runs} runs in {rounds} round{'s' * (rounds > 1)} of one seed each chose a finalist on each side. "
        "Nothing of it enters the decision but the spread of its runs, which keeps few pairs that agree by "
        "chance from looking too certain."
    )
    alone = [side for side, arm in path.finalists.items() if not path.rounds[0].arms.get(side)]
    notes = [f"{SIDES[side]}: the only arm, so it was not explored." for side in alone]
    seeds = [f"seed {entry.seed}" for entry in path.rounds]
    rows = [
        [
            arm.arm,
            SIDES[arm.side],
            *_cells(arm, rounds),
            style.number(_mean(arm)) if math.isfinite(_mean(arm)) else "diverged",
            arm.end,
        ]
        for arm in explored_arms(path)
    ]
    caption = (
        f"How to read this: each row is an arm, each dot the {path.metric} of one run, each bar the mean of "
        "them. Arms that left early were trained on fewer seeds; faint ones are out."
    )
    return PathPart(
        "Exploration: which arm went when",
        (text, *notes),
        picture(EXPLORED, "Arms by round", caption, files),
        Table.of(["arm", "side", *seeds, "mean", BECAME], rows).first("arm", BECAME),
    )


def _drawn_looks(path: SettlePath) -> matplotlib.figure.Figure:
    looks = [look for look in path.looks if math.isfinite(look.difference)]
    return draw_looks(looks, [look.pairs for look in path.planned_looks], path.margin, path.metric)


def _decision(path: SettlePath, files: tuple[Path, ...]) -> PathPart:
    others, bce = path.finalists["others"], path.finalists["bce"]
    declared = ", ".join(str(look.pairs) for look in path.planned_looks)
    notes = [
        f"{others} against {bce} on fresh seeds, with looks declared at {declared} pairs. All looks together "
        f"call arms different that are equal, or equivalent that differ by the margin, in at most "
        f"{1 - path.level:.0%} of studies."
    ]
    if math.isfinite(path.estimate):
        notes.append(
            "The interval of a look holds at all looks together (repeated confidence interval). The mean at "
            f"the moment of stopping is too large on average; the median-unbiased estimate is "
            f"{style.signed(path.estimate)} {path.metric}."
        )
    notes += _test_notes(path)
    caption = (
        f"How to read this: at each look, the mean paired difference of {path.metric} with its repeated "
        "interval. A point beyond a triangle ends the study as better or worse, a point inside the green bar "
        "as equivalent; in between it goes on. The limits follow from the look's own p limit and from the "
        "spread seen by then. The band is the declared margin."
    )
    return PathPart(
        "Decision: each look and its limits",
        tuple(notes),
        picture(LOOKED, "Looks", caption, files),
        Table.of(
            ["pairs", "difference", "interval", "p", "p limit", "p equivalence", "its limit", "said"],
            [_look_row(look) for look in path.looks],
        ),
    )


def _look_row(look: Look) -> list[str]:
    interval = f"{style.signed(look.low)} to {style.signed(look.high)}" if math.isfinite(look.low) else ""
    return [
        str(look.planned),
        style.signed(look.difference) if math.isfinite(look.difference) else "",
        interval,
        *(
            f"{p:.2g}" if math.isfinite(p) else ""
            for p in (look.p, look.p_limit, look.tost_p, look.tost_limit)
        ),
        look.verdict + (f" ({look.note})" if look.pairs < look.planned and look.note else ""),
    ]


def _test_notes(path: SettlePath) -> list[str]:
    if path.test is not None:
        test = path.test
        interval = (
            ""
            if test["low"] is None
            else f", interval {style.signed(test['low'])} to {style.signed(test['high'])}"
        )
        return [
            f"Test split, read once after the verdict: {style.signed(test['difference'])} {test['metric']}"
            f"{interval}, {test['pairs']} pairs. Val decides; test takes part in nothing."
        ]
    if not path.has_test:
        return ["The data have no test split, so nothing but val stands behind the verdict."]
    return ["The test split is read once the verdict has been reached."]


def _cost(path: SettlePath) -> list[str]:
    lines = [f"{path.runs} runs, {path.hours:.2g} h of this machine."]
    if path.runs:
        hours = path.hours / path.runs * path.grid_runs
        lines.append(
            f"The fixed study in its place, every arm on 3 seeds and a confirmation on 6, takes "
            f"{path.grid_runs} runs, about {hours:.2g} h at the same cost each."
        )
    if path.stopped:
        lines.append(f"Stopped: {path.stopped}.")
    return lines
