"""Write a study's report: the page, figures, tables, and what they do not tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from ablation.analyse import figures
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.report import formats as tables
from ablation.analyse.report import markdown as text
from ablation.analyse.report.content import Link, build
from ablation.analyse.report.examples import write_examples
from ablation.analyse.report.html import render
from ablation.analyse.tables import table
from ablation.analyse.verdict.verdict import StudyVerdict, judge, judged
from ablation.analyse.view import StudyView, study_view
from ablation.errors import AblationError, UsageError, one_line
from ablation.files import write_atomic, write_text
from ablation.records import StudyRecord
from ablation.rng import generator

OTHER_QUANTITY = ("loss", "loss_confidence")
"""Last parts of metrics that measure another quantity in every arm."""


@dataclass(frozen=True)
class ReportFiles:
    """What write_report wrote.

    Attributes:
        folder: where everything lies.
        page: report.html, which needs none of the other files.
        tables: the tables, as CSV, Markdown and LaTeX.
        figures: name -> the files of the figure, PNG first.
        skipped: name -> why the figure could not be drawn.
        examples: the files of the example images.
        text: the arms table for a terminal.
        headline: the study in one sentence.
        verdict: all that the statistics say.
    """

    folder: Path
    page: Path
    tables: dict[str, Path]
    text: str
    headline: str
    verdict: StudyVerdict
    figures: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    examples: tuple[Path, ...] = ()

    @property
    def runs_csv(self) -> Path:
        """One row per run, typed."""
        return self.tables["runs.csv"]

    @property
    def arms_csv(self) -> Path:
        """One row per arm, typed."""
        return self.tables["arms.csv"]

    @property
    def arms_md(self) -> Path:
        """The report as Markdown."""
        return self.tables["arms.md"]

    @property
    def files(self) -> list[Path]:
        """Every file of the report."""
        drawn = [path for paths in self.figures.values() for path in paths]
        return [self.page, *self.tables.values(), *drawn, *self.examples]


def write_report(
    study: StudyRecord,
    folder: Path,
    metric: str = "val/AP",
    level: float = 0.95,
    *,
    partial: bool = False,
    artifacts: RunArtifacts | None = None,
    checks: Path | None = None,
    link: Link = lambda run_id: "",
) -> ReportFiles:
    """Page, tables and figures of a study into `folder`, made if needed; files are replaced whole.

    Equal records give byte-identical files.

    Args:
        metric: what is compared; the name of a logged metric.
        level: of all intervals, in (0, 1).
        partial: draw a verdict although runs are missing.
        artifacts: the files that the runs left; None: those in their folders.
        checks: the folder of `ablation check`'s results, for the part about the data.
        link: run_id -> its address in MLflow's UI.

    Raises:
        UsageError: no run of the study has that metric, or it cannot be compared between arms.
        AblationError: no run of the study has finished.
    """
    if not 0 < level < 1:
        raise UsageError(f"level={level:g}: must lie between 0 and 1, such as 0.95")
    _require_values(study, metric)
    kept = RunArtifacts(study) if artifacts is None else artifacts
    view = study_view(study, metric, level)
    view = replace(view, artifacts=kept)
    verdict = judge(view, partial=partial, generator=generator(0, "report"), artifacts=kept)
    view = judged(view, verdict)
    drawn, skipped = _write_figures(view, folder)
    remark, shown = write_examples(view, verdict, kept, folder)
    written = _write_tables(view, verdict, folder, drawn, skipped)
    examples = [example.picture for example in shown]
    page = folder / "report.html"
    content = build(view, verdict, kept, drawn, skipped, (remark, examples), checks, link)
    write_text(page, render(content))
    in_terminal = text.terminal(view)
    files = tuple(path for example in shown for path in example.files)
    return ReportFiles(folder, page, written, in_terminal, verdict.sentence, verdict, drawn, skipped, files)


def _write_tables(
    view: StudyView,
    verdict: StudyVerdict,
    folder: Path,
    drawn: dict[str, tuple[Path, ...]],
    skipped: dict[str, str],
) -> dict[str, Path]:
    """CSV for programs, Markdown and LaTeX for people; name -> path."""
    about = f"study {view.study.name}"
    arms = tables.Table.of(*text.arm_rows(view)).used()
    runs = _runs_for_people(view)
    contents = {
        "runs.csv": tables.csv(view.runs),
        "arms.csv": tables.csv(view.arms),
        "arms.md": text.markdown(view, verdict, drawn, skipped),
        "runs.md": tables.markdown(runs) + "\n",
        "arms.tex": tables.latex(arms, f"{about}, {view.metric}, intervals {view.percent}"),
        "runs.tex": tables.latex(runs, about),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return {name: folder / name for name in contents}


def _runs_for_people(view: StudyView) -> tables.Table:
    """Every run with its state, value and key."""
    rows = []
    for _, run in view.runs.iterrows():
        value = run.get(view.metric, math.nan)
        state = f"{run['state']}, {run['problem']}" if run["problem"] else str(run["state"])
        shown = f"{value:.3f}" if pd.notna(value) else ""
        rows.append([str(run["setting"]), str(run["seed"]), state, shown, str(run["key"])[:8]])
    return tables.Table.of(["arm", "seed", "state", view.metric, "key"], rows)


def _require_values(study: StudyRecord, metric: str) -> None:
    if not study.runs and not study.planned:
        raise AblationError(f"study {study.name}: no runs were recorded; train some first")
    runs = table.runs_table(study)
    if not runs["valid"].any():
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
        shown = (", ".join(names[:30]) + (", ..." if len(names) > 30 else "")) or "no metric at all"
        raise UsageError(f"metric={metric}: no finished run of study {study.name} has it; they have: {shown}")


def _write_figures(view: StudyView, folder: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
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
            for kind in ("png", "pdf", "svg"):  # A picture of an earlier state would be taken for this one.
                (folder / f"{figure.name}.{kind}").unlink(missing_ok=True)
            continue
        paths = []
        for kind, data in files.items():
            path = folder / f"{figure.name}.{kind}"
            write_atomic(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
            paths.append(path)
        drawn[figure.name] = tuple(paths)
    return drawn, skipped
