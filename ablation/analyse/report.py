"""Write a study's report: figures, tables, and what they do not tell."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ablation.analyse import figures, table
from ablation.analyse.headline import headline
from ablation.errors import AblationError, UsageError, one_line
from ablation.files import write_atomic, write_text
from ablation.records import StudyRecord

OTHER_QUANTITY = ("loss", "loss_confidence")
"""Last parts of metrics that measure another quantity in every arm."""


@dataclass(frozen=True)
class ReportFiles:
    """What write_report wrote.

    Attributes:
        folder: where everything lies.
        figures: name -> the files of the figure, PNG first.
        skipped: name -> why the figure could not be drawn.
        runs_csv, arms_csv, arms_md: the tables.
        text: the arms table for a terminal.
        headline: the study in one sentence.
    """

    folder: Path
    runs_csv: Path
    arms_csv: Path
    arms_md: Path
    text: str
    headline: str
    figures: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def write_report(
    study: StudyRecord, folder: Path, metric: str = "val/AP", level: float = 0.95
) -> ReportFiles:
    """Tables and figures of a study into `folder`, which is made if needed; files are replaced whole.

    Equal records give byte-identical files.

    Args:
        metric: what is compared; the name of a logged metric.
        level: of all intervals, in (0, 1).

    Raises:
        UsageError: no run of the study has that metric, or it cannot be compared between arms.
        AblationError: no run of the study has finished.
    """
    if not 0 < level < 1:
        raise UsageError(f"level={level:g}: must lie between 0 and 1, such as 0.95")
    _require_values(study, metric)
    view = figures.study_view(study, metric, level)
    drawn, skipped = _write_figures(view, folder)
    runs_csv, arms_csv, arms_md = folder / "runs.csv", folder / "arms.csv", folder / "arms.md"
    _write_csv(view.runs, runs_csv)
    _write_csv(view.arms, arms_csv)
    sentence = headline(view.arms, metric, level)
    write_text(arms_md, _markdown(view, sentence, drawn, skipped))
    text = _terminal(view)
    return ReportFiles(folder, runs_csv, arms_csv, arms_md, text, sentence, drawn, skipped)


def _require_values(study: StudyRecord, metric: str) -> None:
    if not study.runs and not study.planned:
        raise AblationError(f"study {study.name}: no runs were recorded; train some first")
    runs = table.runs_table(study)
    if not runs["counts"].any():
        raise AblationError(
            f"study {study.name}: no finished run to report ({table.state_counts(runs)}); "
            "finish or resume the runs first"
        )
    if metric.split("/")[-1] in OTHER_QUANTITY:
        raise UsageError(
            f"metric={metric}: each loss measures another quantity, so it cannot be compared between arms; "
            "take a metric of the evaluation such as val/AP"
        )
    names = table.metric_names(runs)
    if metric not in names:
        shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
        raise UsageError(
            f"metric={metric}: no finished run of study {study.name} has it; they have: {shown or 'no metric at all'}"
        )


def _write_figures(
    view: figures.StudyView, folder: Path
) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    drawn: dict[str, tuple[Path, ...]] = {}
    skipped: dict[str, str] = {}
    for figure in figures.discover():
        # One figure that fails must not take the tables and the other figures with it.
        try:
            reason = figure.applies(view)
            files = figures.render(figure, view) if reason is None else {}
        except Exception as error:
            reason, files = one_line(f"drawing it failed: {type(error).__name__}: {error}", 300), {}
        if reason is not None:
            skipped[figure.name] = reason
            for kind in ("png", "pdf"):  # A picture of an earlier state would be taken for this one.
                (folder / f"{figure.name}.{kind}").unlink(missing_ok=True)
            continue
        paths = []
        for kind, data in files.items():
            path = folder / f"{figure.name}.{kind}"
            write_atomic(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
            paths.append(path)
        drawn[figure.name] = tuple(paths)
    return drawn, skipped


def _write_csv(rows: pd.DataFrame, path: Path) -> None:
    """Names from data never become a spreadsheet's formula: a leading =, +, - or @ is quoted."""
    safe = rows.copy()
    for name in safe.columns:
        if pd.api.types.is_object_dtype(safe[name]) or pd.api.types.is_string_dtype(safe[name]):
            safe[name] = [f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in safe[name]]
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False, lineterminator="\n")
    write_text(path, buffer.getvalue())


def _arm_rows(view: figures.StudyView) -> tuple[list[str], list[list[str]]]:
    """The arms table for people: header and cells."""
    head = ["arm", "n", view.metric, "sd", f"{view.percent} interval", "difference to BCE",
            f"{view.percent} interval", "pairs", "p", "not finished"]  # fmt: skip
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
            ", ".join(lost),
        ])  # fmt: skip
    return head, rows


def _number(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}" if math.isfinite(value) else ""


def _interval(low: float, high: float, form: str) -> str:
    return f"[{low:{form}}, {high:{form}}]" if math.isfinite(low) and math.isfinite(high) else ""


def _terminal(view: figures.StudyView) -> str:
    """Columns of equal width, the first to the left, numbers to the right; empty columns left out."""
    head, rows = _arm_rows(view)
    used = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    lines = [[head[i] for i in used], *([row[i] for i in used] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(used))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip


def _markdown(
    view: figures.StudyView, sentence: str, drawn: dict[str, tuple[Path, ...]], skipped: dict[str, str]
) -> str:
    parts = [
        f"# Study {_escape(view.study.name)}",
        _escape(view.study.description),
        f"**{_escape(sentence)}.**",
    ]
    parts += ["## Arms", _markdown_table(*_arm_rows(view)), *(f"- {note}" for note in _notes(view))]
    problems = table.problems(view.runs, view.metric)
    parts.append("## Runs that are no data")
    if problems.empty:
        parts.append("None: every planned run finished.")
    else:
        rows = [[str(row[name]) if name != "key" else str(row[name])[:8] for name in problems.columns]
                for _, row in problems.iterrows()]  # fmt: skip
        parts.append(_markdown_table(list(problems.columns), rows))
    parts.append("## Figures")
    for figure in figures.discover():
        if figure.name in drawn:
            image = drawn[figure.name][0].name
            parts += [f"### {figure.title}", f"![{figure.title}]({image})", _escape(figure.caption_for(view))]
        else:
            parts += [f"### {figure.title}", f"Not drawn: {_escape(skipped[figure.name])}."]
    return (
        "\n\n".join(part for part in parts if part).replace("\n\n- ", "\n- ").replace("|\n- ", "|\n\n- ")
        + "\n"
    )


def _notes(view: figures.StudyView) -> Iterable[str]:
    """What the reader of the table has to know, and what these numbers cannot carry."""
    n = view.arms.loc[view.arms["n"] > 0, "n"]
    yield (
        f"n counts seeds, one training each. Intervals are {view.percent} Student t intervals over seeds; "
        "differences are paired by seed; p is the exact two-sided sign-flip test, one arm at a time."
    )
    if int(n.min()) <= 2:
        yield (
            "One seed has no interval. With two seeds an interval rests on one degree of freedom (12.7 standard "
            "errors at 95%) and its width is itself chance: nothing can be concluded from it."
        )
    smallest = int(n.max())
    if smallest < 6:
        yield (
            f"With {smallest} {'pair' if smallest == 1 else 'pairs'} the sign-flip p cannot be smaller than "
            f"{2.0 ** (1 - smallest):.3g}, however large the effect; 6 pairs are the first that can reach 0.05."
        )
    if len(view.arms) > 2:
        yield (
            f"{len(view.arms) - 1} arms are compared at once and no interval or p in the table is corrected for it: "
            "the best of several equal arms looks better than it is."
        )
    if view.baseline is None:
        yield "The study has no plain BCE arm (loss=bce with pos_weight 1 or null), so there are no differences."
    yield _escape(view.held_text)


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_escape(c) if c != "---" else c for c in line) + " |" for line in lines
    )


def _escape(text: str) -> str:
    """A text from data as plain Markdown: no markup, no HTML, no end of a table's cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
