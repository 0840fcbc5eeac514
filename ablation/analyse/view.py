"""A study as data: what figures and statistics look at, also for an analysis of one's own."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.tables import completeness, table
from ablation.analyse.tables.held_fixed import HeldFixed, held_fixed
from ablation.records import StudyRecord, metric_and_level


@dataclass(frozen=True)
class StudyView:
    """All that a figure may look at.

    Attributes:
        study: the records; figures need them for curves only.
        runs, arms: see table.runs_table and table.arms_table, made for `metric` and `level`.
        metric: what is compared, such as val/AP.
        level: of every interval.
        baseline: the arm of plain BCE, or None.
        held: what the valid runs share besides the loss, and what differs between them.
        partial: what an incomplete study says on every figure; empty for a complete one.
        artifacts: the files that the runs left; None: only what the tables hold.
    """

    study: StudyRecord
    runs: pd.DataFrame
    arms: pd.DataFrame
    metric: str
    level: float
    baseline: str | None
    held: HeldFixed
    partial: str = ""
    artifacts: RunArtifacts | None = None

    @property
    def percent(self) -> str:
        """The level for people: '95%'."""
        return f"{100 * self.level:g}%"

    @property
    def n_text(self) -> str:
        """How many seeds stand behind the arms: 'n = 5 seeds per arm', 'n = 1 to 5 seeds per arm'."""
        n = self.arms.loc[self.arms["n"] > 0, "n"]
        if n.empty:
            return "n = 0: no arm has a finished run"
        low, high = int(n.min()), int(n.max())
        count = f"{low}" if low == high else f"{low} to {high}"
        return f"n = {count} {'seed' if high == 1 else 'seeds'} per arm"

    @property
    def test_runs(self) -> int:
        """How many valid runs were evaluated on the test split."""
        columns = [name for name in self.runs.columns if name.startswith("test/")]
        return int(self.runs[columns].notna().any(axis=1).sum()) if columns else 0

    @property
    def held_text(self) -> str:
        """What the runs share, what they should share but do not, and that runs are missing if any are."""
        text = self.held.text(several_gains=bool(self.arms["gain"].nunique() > 1))
        return f"{text} {self.partial}" if self.partial else text


def study_view(
    study: StudyRecord, metric: str = "val/AP", level: float = 0.95, artifacts: RunArtifacts | None = None
) -> StudyView:
    """The tables of a study, made once for all figures."""
    runs = table.runs_table(study)
    return StudyView(
        study=study,
        runs=runs,
        arms=table.arms_table(runs, metric, level),
        metric=metric,
        level=level,
        baseline=table.baseline_arm(runs),
        held=held_fixed(study, runs),
        partial=completeness.stamp(runs, metric),
        artifacts=artifacts,
    )


def load_view(study: str, *, metric: str | None = None, uri: str | None = None) -> StudyView:
    """Everything that the report's figures look at: `view.runs`, `view.arms`, `view.artifacts`, ...

    Args:
        study: its name.
        metric: what is compared; None: what the study declared, else val/AP.
        uri: of the MLflow store; None: mlflow.db in this folder.

    Raises:
        UsageError: no such store or study; the message names the studies that there are.
    """
    from ablation.tracking.store import Store
    from ablation.tracking.study_record import fetch_artifact, load_study

    store = Store.of(uri, None)
    record = load_study(store, study)
    declared_metric, level = metric_and_level(record.declared)
    artifacts = RunArtifacts(record, lambda run_id, path: fetch_artifact(store, run_id, path))
    return study_view(record, metric or declared_metric, level, artifacts)


def load_runs(study: str, *, uri: str | None = None) -> pd.DataFrame:
    """One row per planned or recorded run: columns as in table.runs_table. Arguments as in load_view.

    Only rows with `valid` are data: the others failed, diverged, are missing or were replaced.
    """
    return load_view(study, uri=uri).runs
