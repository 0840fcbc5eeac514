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
            _number(arm.get("p_holm", math.nan), ".2g"),
            _verdict(arm),
            ", ".join(lost),
        ])  # fmt: skip
    return head, rows


def _covers(view: StudyView) -> str:
    """What the differences' intervals cover."""
    compared = view.arms[view.arms["n_pairs"] > 1]
    known = compared.get("image_se", pd.Series(math.nan, index=compared.index)).notna()
    if len(compared) and known.all():
        return "other seeds and other images of the same kind"
    return "other seeds, and in some arms other images" if known.any() else "other seeds, not other images"


def _verdict(arm: pd.Series) -> str:
    """'better', or 'inconclusive (+9 seeds)': so many more would tell; empty where nothing was judged."""
    verdict, more = str(arm.get("verdict", "")), arm.get("more_seeds")
    if more is None or pd.isna(more):
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
    view: StudyView, sentence: str, drawn: dict[str, tuple[Path, ...]], skipped: dict[str, str]
) -> str:
    """The report as one Markdown text; `drawn` and `skipped` as in report.ReportFiles."""
    study = view.study
    parts = [
        f"# Study {escaped(study.name)}",
        escaped(study.description),
        f"**{escaped(sentence)}.**",
    ]
    remarks = "\n".join(f"- {escaped(note)}" for note in notes(view))
    parts += ["## Arms", markdown_table(Table.of(*arm_rows(view))), remarks]
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


def notes(view: StudyView) -> Iterable[str]:
    """What the reader of the table has to know, and what these numbers cannot carry."""
    n = view.arms.loc[view.arms["n"] > 0, "n"]
    yield (
        f"n counts seeds, one training each. The {view.percent} interval of a mean is Student's over seeds; "
        f"differences are paired by seed, and their intervals cover {_covers(view)}. p sign-flip is exact, "
        "of one arm at a time; p Holm is that of the t test with the interval's standard error, allowed for "
        f"the arms that are tested together; it needs {MIN_PAIRS} pairs, and it decides."
    )
    if int(n.min()) <= 2:
        yield (
            "One seed has no interval. With two seeds an interval rests on one degree of freedom "
            "(at 95%: 12.7 standard errors) and its width is itself chance: nothing can be concluded from it."
        )
    most = int(view.arms["n_pairs"].max())
    if 1 <= most < 6:
        yield (
            f"With {most} {'pair' if most == 1 else 'pairs'} the sign-flip p cannot be smaller than "
            f"{2.0 ** (1 - most):.3g}, however large the effect; 6 pairs are the first that can reach 0.05."
        )
    compared = int((view.arms["n_pairs"] > 0).sum())
    if compared > 1:
        yield (
            f"{compared} arms are compared at once; p Holm allows for it, the intervals and the sign-flip p "
            "do not: the best of several equal arms looks better than it is."
        )
    if view.baseline is None:
        yield "The study has no plain BCE arm (pos_weight 1 or null), so there are no differences."
    yield view.held_text
