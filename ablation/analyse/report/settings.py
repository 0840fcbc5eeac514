"""What a report compares, and what it may link to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ablation.analyse.report.settle_path import SettlePath
from ablation.analyse.verdict.confirmation import StudyConfirmation
from ablation.errors import UsageError
from ablation.records import DEFAULT_LEVEL, DEFAULT_METRIC

Link = Callable[[str], str]
"""run_id -> the address of the run in MLflow's UI, or ''."""


def no_link(run_id: str) -> str:
    """A Link to nothing."""
    return ""


@dataclass(frozen=True)
class ReportSettings:
    """How a study is reported.

    Attributes:
        metric: what is compared; the name of a logged metric.
        level: of all intervals, in (0, 1).
        partial: give a verdict although runs are missing.
        checks: the folder of `ablation check`'s results, for the section about the data; None: none.
        link: to the runs in MLflow's UI.
        confirmation: of the study by `ablation confirm`; None: there was none.
        path: of the `ablation settle` whose decision the study is; None: it is of none.

    Raises:
        UsageError: the level is out of range.
    """

    metric: str = DEFAULT_METRIC
    level: float = DEFAULT_LEVEL
    partial: bool = False
    checks: Path | None = None
    link: Link = no_link
    confirmation: StudyConfirmation | None = None
    path: SettlePath | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level:g}: must lie between 0 and 1, such as 0.95")
