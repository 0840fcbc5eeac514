"""Write a study's report: the page, figures, tables, and what they do not tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.detections.stored import lost_detections
from ablation.analyse.report import formats, markdown
from ablation.analyse.report.content import build
from ablation.analyse.report.drawn_figures import DrawnFigures, draw_figures
from ablation.analyse.report.examples import write_examples
from ablation.analyse.report.html import render
from ablation.analyse.report.recommendation import arm_threshold
from ablation.analyse.report.settings import ReportSettings
from ablation.analyse.report.settle_section import PathSection, settle_section
from ablation.analyse.tables import table
from ablation.analyse.verdict.verdict import StudyVerdict, judge, judged
from ablation.analyse.view import StudyView, study_view
from ablation.errors import AblationError, UsageError
from ablation.files import write_json, write_text
from ablation.records import StudyRecord
from ablation.rng import generator

OTHER_QUANTITY = ("loss", "loss_confidence")
"""Metrics, without their split, that measure another quantity in every arm."""
THRESHOLDS = "thresholds.json"
_METRICS_LISTED = 30


@dataclass(frozen=True)
class ReportFiles:
    """What write_report wrote.

    Attributes:
        folder: where everything lies.
        page: report.html, which needs none of the other files.
        tables: the tables, as CSV, Markdown and LaTeX, and thresholds.json, by file name.
        text: the arms table for a terminal.
        verdict: all that the statistics say.
        drawn: the figures.
        examples: the files of the example images.
        path: the files of the pictures of a settle's path.
    """

    folder: Path
    page: Path
    tables: dict[str, Path]
    text: str
    verdict: StudyVerdict
    drawn: DrawnFigures
    examples: tuple[Path, ...]
    path: tuple[Path, ...] = ()

    @property
    def headline(self) -> str:
        """The study in one sentence."""
        return self.verdict.sentence

    @property
    def figures(self) -> dict[str, tuple[Path, ...]]:
        """Name -> the files of the figure, PNG first."""
        return self.drawn.files

    @property
    def skipped(self) -> dict[str, str]:
        """Name -> why the figure was not drawn."""
        return self.drawn.skipped

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
        return [self.page, *self.tables.values(), *self.drawn.paths, *self.examples, *self.path]


def write_report(
    study: StudyRecord,
    folder: Path,
    settings: ReportSettings | None = None,
    artifacts: RunArtifacts | None = None,
) -> ReportFiles:
    """Page, tables and figures of a study into `folder`, made if needed; files are replaced whole.

    Equal records give byte-identical files.

    Args:
        settings: None: val/AP at 95%.
        artifacts: the files that the runs left; None: those in their folders.

    Raises:
        UsageError: no run of the study has the metric, or it cannot be compared between arms.
        AblationError: no run of the study has finished.
    """
    settings = settings or ReportSettings()
    _require_values(study, settings.metric)
    artifacts = artifacts or RunArtifacts(study)
    study = replace(study, missing=(*study.missing, *lost_detections(study, artifacts)))
    view = study_view(study, settings.metric, settings.level, artifacts)
    verdict = judge(
        view,
        partial=settings.partial,
        generator=generator(0, "report"),
        confirmation=settings.confirmation,
    )
    view = judged(view, verdict)
    drawn = draw_figures(view, folder)
    examples = write_examples(view, verdict, artifacts, folder)
    path = PathSection() if settings.path is None else settle_section(settings.path, folder)
    page = folder / "report.html"
    write_text(page, render(build(view, verdict, artifacts, drawn, examples, path, settings)))
    return ReportFiles(
        folder=folder,
        page=page,
        tables=_write_tables(view, verdict, drawn, folder) | _write_thresholds(view, artifacts, folder),
        text=markdown.terminal(view),
        verdict=verdict,
        drawn=drawn,
        examples=tuple(file for example in examples.images for file in example.files),
        path=path.files,
    )


def _write_tables(
    view: StudyView, verdict: StudyVerdict, drawn: DrawnFigures, folder: Path
) -> dict[str, Path]:
    """CSV for programs, Markdown and LaTeX for people; name -> path."""
    name = f"study {view.study.name}"
    arms = formats.Table.of(*markdown.arm_rows(view)).used()
    runs = _runs_for_people(view)
    contents = {
        "runs.csv": formats.csv(view.runs),
        "arms.csv": formats.csv(view.arms),
        "arms.md": markdown.report_text(view, verdict, drawn),
        "runs.md": formats.markdown(runs) + "\n",
        "arms.tex": formats.latex(arms, f"{name}, {view.metric}, intervals {view.percent}"),
        "runs.tex": formats.latex(runs, name),
    }
    for file_name, content in contents.items():
        write_text(folder / file_name, content)
    return {file_name: folder / file_name for file_name in contents}


def _write_thresholds(view: StudyView, artifacts: RunArtifacts, folder: Path) -> dict[str, Path]:
    """Each arm's best score threshold, for `ablation predict`; of no arm without detections."""
    best = {str(arm): arm_threshold(view, str(arm), artifacts) for arm in view.arms["arm"]}
    path = folder / THRESHOLDS
    write_json(path, {arm: vars(threshold) for arm, threshold in best.items() if threshold is not None})
    return {THRESHOLDS: path}


def _runs_for_people(view: StudyView) -> formats.Table:
    """Every run with its state, value and key."""
    rows = []
    for _, run in view.runs.iterrows():
        number = run.get(view.metric, math.nan)
        state = f"{run['state']}, {run['problem']}" if run["problem"] else str(run["state"])
        value = f"{number:.3f}" if pd.notna(number) else ""
        rows.append([str(run["setting"]), str(run["seed"]), state, value, str(run["key"])[:8]])
    return formats.Table.of(["arm", "seed", "state", view.metric, "key"], rows)


def _require_values(study: StudyRecord, metric: str) -> None:
    if not study.runs and not study.planned:
        raise AblationError(f"study {study.name}: no runs were recorded; train some first")
    runs = table.runs_table(study)
    if not runs["valid"].any():
        raise AblationError(
            f"study {study.name}: no finished run to report ({table.state_counts(runs)}); "
            "finish or resume the runs first"
        )
    if metric.partition("/")[2] in OTHER_QUANTITY:
        raise UsageError(
            f"metric={metric}: each loss measures another quantity, so it cannot be compared between arms; "
            "take a metric of the evaluation such as val/AP"
        )
    names = table.metric_names(runs)
    if metric not in names:
        more = ", ..." if len(names) > _METRICS_LISTED else ""
        known = ", ".join(names[:_METRICS_LISTED]) + more if names else "no metric at all"
        raise UsageError(f"metric={metric}: no finished run of study {study.name} has it; they have: {known}")
