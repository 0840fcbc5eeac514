"""The arms table and the report's Markdown, for people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ablation.analyse import figures
from ablation.analyse.report.formats import Table
from ablation.analyse.report.formats import escape_markdown as escaped
from ablation.analyse.report.formats import markdown as markdown_table
from ablation.analyse.statistics.paired import MIN_PAIRS
from ablation.analyse.tables import table
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView


def arm_rows(view: StudyView) -> tuple[list[str], list[list[str]]]:
    """The arms table for people: header and cells."""
    head = ["arm", "n", view.metric, "sd", f"{view.percent} interval", "difference to BCE",
            f"{view.percent} interval", "pairs", "p sign-flip", "p Holm", "verdict",
            "not finished"]  # fmt: skip
    rows = []
    for _, arm in view.arms.iterrows():
        lost = [f"{int(arm[f'n_{kind}'])} {kind}" for kind in ("diverged", "failed", "unfinished", "missing")
                if arm[f"n_{kind}"]]  # fmt: skip
        pairs = "" if arm["baseline"] else str(int(arm["n_pairs"]))
        difference = "baseline" if arm["baseline"] else _number(arm["difference"], "+.3f")
        rows.append([
            str(arm["setting"]),
            str(int(arm["n"])),
            _number(arm["mean"]),
            _number(arm["sd"]),
            _interval(arm["low"], arm["high"], ".3f"),
            difference,
            "" if arm["baseline"] else _interval(arm["difference_low"], arm["difference_high"], "+.3f"),
            pairs,
            _number(arm["difference_p"], ".3g"),
            _number(arm["p_holm"], ".2g"),
            _verdict(arm),
            ", ".join(lost),
        ])  # fmt: skip
    return head, rows


def _verdict(arm: pd.Series) -> str:
    """'better', or 'inconclusive (+9 seeds)': so many more would tell; empty where nothing was judged."""
    verdict, more = str(arm["verdict"]), arm["more_seeds"]
    if pd.isna(more):
        return verdict
    return f"{verdict} (+{int(more):,} {'seed' if more == 1 else 'seeds'})"


def _number(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}" if math.isfinite(value) else ""


def _interval(low: float, high: float, form: str) -> str:
    return f"[{low:{form}}, {high:{form}}]" if math.isfinite(low) and math.isfinite(high) else ""


def terminal(view: StudyView) -> str:
    """Columns of equal width, the first to the left, numbers to the right; empty columns left out."""
    arms = Table.of(*arm_rows(view)).used()
    lines = [arms.head, *arms.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(arms.head))]
    texts = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def markdown(
    view: StudyView, verdict: StudyVerdict, drawn: dict[str, tuple[Path, ...]], skipped: dict[str, str]
) -> str:
    """The report as one Markdown text; `drawn` and `skipped` as in report.ReportFiles."""
    study = view.study
    parts = [
        f"# Study {escaped(study.name)}",
        escaped(study.description),
        f"**{escaped(verdict.sentence)}.**",
    ]
    parts += ["## Arms", markdown_table(Table.of(*arm_rows(view))), _bullets(notes(view, verdict))]
    parts += ["## What this study cannot conclude", _bullets(verdict.limitations)]
    problems = table.problems(view.runs, view.metric)
    parts.append("## Runs that are not valid")
    if problems.empty:
        parts.append("None: every planned run finished.")
    else:
        rows = [[str(row[name]) if name != "key" else str(row[name])[:8] for name in problems.columns]
                for _, row in problems.iterrows()]  # fmt: skip
        parts.append(markdown_table(Table.of(list(problems.columns), rows)))
    parts.append("## Figures")
    for figure in figures.discover():
        if figure.name in drawn:
            image = drawn[figure.name][0].name
            parts += [
                f"### {figure.title}",
                f"![{figure.title}]({image})",
                escaped(figure.caption_for(view)),
            ]
        else:
            parts += [f"### {figure.title}", f"Not drawn: {escaped(skipped[figure.name])}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)


def notes(view: StudyView, verdict: StudyVerdict) -> Iterable[str]:
    """How the arms table is read; what its numbers cannot show stands in verdict.limitations."""
    yield (
        f"n counts seeds, one training each. The {view.percent} interval of a mean is Student's over seeds; "
        f"differences are paired by seed, and their intervals cover {verdict.covers}. p sign-flip is exact, "
        "of one arm at a time; p Holm is the t test's p with the interval's standard error, adjusted for "
        f"the arms that are tested together; it needs {MIN_PAIRS} pairs, and it decides."
    )
    if view.baseline is None:
        yield "The study has no plain BCE arm (pos_weight 1 or null), so there are no differences."
    yield view.held_text
