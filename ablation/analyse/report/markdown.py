"""The arms table and the report's Markdown, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from ablation.analyse import figures
from ablation.analyse.report.drawn_figures import DrawnFigures
from ablation.analyse.report.formats import Table, escape_markdown, markdown
from ablation.analyse.statistics.paired import MIN_PAIRS
from ablation.analyse.tables import table
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView


def arm_rows(view: StudyView) -> tuple[list[str], list[list[str]]]:
    """The arms table for people: header and cells."""
    interval = f"{view.percent} interval"
    head = ["arm", "n", view.metric, "sd", interval]
    head += ["difference to BCE", interval, "pairs", "p sign-flip", "p Holm", "verdict", "not finished"]
    return head, [[*_values(arm), *_comparison(arm), _unfinished(arm)] for _, arm in view.arms.iterrows()]


def _values(arm: pd.Series) -> list[str]:
    """The arm by itself: its setting, how many seeds, their mean and spread."""
    interval = _interval(arm["low"], arm["high"], ".3f")
    return [str(arm["setting"]), str(int(arm["n"])), _number(arm["mean"]), _number(arm["sd"]), interval]


def _comparison(arm: pd.Series) -> list[str]:
    """The arm against the baseline."""
    if arm["baseline"]:
        return ["baseline", "", "", "", "", _verdict(arm)]
    return [
        _number(arm["difference"], "+.3f"),
        _interval(arm["difference_low"], arm["difference_high"], "+.3f"),
        str(int(arm["n_pairs"])),
        _number(arm["difference_p"] if arm["n_pairs"] > 1 else math.nan, ".3g"),  # of one pair it is 1
        _number(arm["p_holm"], ".2g"),
        _verdict(arm),
    ]


def _unfinished(arm: pd.Series) -> str:
    kinds = ("diverged", "failed", "unfinished", "missing")
    return ", ".join(f"{int(arm[f'n_{kind}'])} {kind}" for kind in kinds if arm[f"n_{kind}"])


def _verdict(arm: pd.Series) -> str:
    """'better', or 'inconclusive (12 fresh seeds)': so many would tell; empty where nothing was judged."""
    verdict, more = str(arm["verdict"]), arm["more_seeds"]
    if pd.isna(more):
        return verdict
    seeds = "seed" if more == 1 else "seeds"
    return (
        f"{verdict} ({int(more):,} fresh {seeds})" if arm["fresh"] else f"{verdict} (+{int(more):,} {seeds})"
    )


def _number(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}" if math.isfinite(value) else ""


def _interval(low: float, high: float, form: str) -> str:
    return f"[{low:{form}}, {high:{form}}]" if math.isfinite(low) and math.isfinite(high) else ""


def terminal(view: StudyView) -> str:
    """Columns of equal width, the first to the left, numbers to the right; empty columns left out."""
    arms = Table.of(*arm_rows(view)).used()
    rows = [arms.head, *arms.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(arms.head))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report_text(view: StudyView, verdict: StudyVerdict, drawn: DrawnFigures) -> str:
    """The report as one Markdown text."""
    parts = [
        f"# Study {escape_markdown(view.study.name)}",
        escape_markdown(view.study.description),
        f"**{escape_markdown(verdict.sentence)}.**",
        escape_markdown(verdict.confirmation_line),
        "## Arms",
        markdown(Table.of(*arm_rows(view))),
        _list(notes(view, verdict)),
        "## What this study cannot conclude",
        _list(verdict.limitations),
        "## Runs that are not valid",
        _problems(view),
        "## Figures",
        *_figures(view, drawn),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _list(texts: Iterator[str] | list[str]) -> str:
    return "\n".join(f"- {escape_markdown(text)}" for text in texts)


def _problems(view: StudyView) -> str:
    problems = table.problems(view.runs, view.metric)
    if problems.empty:
        return "None: every planned run finished."
    problems = problems.assign(key=problems["key"].str[:8]).astype(str)
    return markdown(Table.of(list(problems.columns), problems.to_numpy().tolist()))


def _figures(view: StudyView, drawn: DrawnFigures) -> Iterator[str]:
    for figure in figures.discover():
        yield f"### {figure.title}"
        if figure.name in drawn.files:
            yield f"![{figure.title}]({drawn.files[figure.name][0].name})"
            yield escape_markdown(figure.caption_for(view))
        else:
            yield f"Not drawn: {escape_markdown(drawn.skipped[figure.name])}."


def notes(view: StudyView, verdict: StudyVerdict) -> Iterator[str]:
    """What the columns of the arms table mean. What its numbers cannot carry is in verdict.limitations."""
    yield (
        f"n counts seeds, one training each. The {view.percent} interval of a mean is Student's over seeds; "
        f"differences are paired by seed, and their intervals cover {verdict.covers}. p sign-flip is exact, "
        "for each arm alone. p Holm is the p of the t test with the interval's standard error, adjusted for "
        f"the number of arms tested together; it needs {MIN_PAIRS} pairs, and the verdict goes by it."
    )
    if view.baseline is None:
        yield "The study has no plain BCE arm (pos_weight 1 or null), so there are no differences."
    yield view.held_text
