"""Write a study's report: figures, tables, and what they do not tell."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ablation.analyse import figures, table, text
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

    @property
    def files(self) -> list[Path]:
        """Every file of the report."""
        drawn = [path for paths in self.figures.values() for path in paths]
        return [self.arms_md, self.arms_csv, self.runs_csv, *drawn]


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
    write_text(arms_md, text.markdown(view, sentence, drawn, skipped))
    in_terminal = text.terminal(view)
    return ReportFiles(folder, runs_csv, arms_csv, arms_md, in_terminal, sentence, drawn, skipped)


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
        shown = (", ".join(names[:30]) + (", ..." if len(names) > 30 else "")) or "no metric at all"
        raise UsageError(f"metric={metric}: no finished run of study {study.name} has it; they have: {shown}")


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
