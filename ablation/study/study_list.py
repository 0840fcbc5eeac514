"""The studies below a folder, from their folders alone: state, verdict of the report, and what to do next."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import StoreError, UsageError, one_line
from ablation.study.expand import override_text
from ablation.study.plan_file import plan_file, renamed_text
from ablation.study.run_status import StudyStatus, study_status
from ablation.tracking.study_folder import read_plan, studies_in

VERDICT_FILE = "verdict.json"
"""In the report's folder: verdict, headline, recommended arm and metric."""

MORE_WORK = ("to do", "interrupted", "failed")


@dataclass(frozen=True)
class StudySummary:
    """One study.

    Attributes:
        folder: where it lies.
        runs: in its plan.
        counts: status -> runs, those that occur.
        verdict: of its last report: better, worse, equivalent, inconclusive or none; "" without a report.
        headline: the report's answer in one sentence.
        outdated: whether runs have ended since that report.
        next: the command that takes the study further; "" where there is nothing to do.
        problem: why it cannot be read; "" where it can.
    """

    study: str
    folder: str
    runs: int = 0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    verdict: str = ""
    headline: str = ""
    outdated: bool = False
    next: str = ""
    problem: str = ""

    @property
    def done(self) -> int:
        """Runs that finished or diverged."""
        return self.counts.get("finished", 0) + self.counts.get("diverged", 0)


def list_studies(out: Path) -> list[StudySummary]:
    """Every study that has a plan, by name."""
    summaries = [_summary(out, path.parent) for path in out.glob("*/plan.json")]
    return sorted(summaries, key=lambda summary: summary.study)


def require_study(command_name: str, study: str, out: Path) -> None:
    """Refuse a command without study=, with the studies that there are.

    Raises:
        UsageError: `study` is empty.
    """
    if study:
        return
    folders = [path.parent for path in sorted(out.glob("*/plan.json"))]
    names = [f"study={shlex.quote(_name(folder))}" for folder in folders]
    known = f"there are: {one_line(', '.join(names), 400)}" if names else f"there is no study in {out}/ yet"
    raise UsageError(f"ablation {command_name}: study=... is missing; {known}; `ablation studies` lists them")


def command(name: str, study: str, out: Path, *more: str) -> str:
    """A command for a shell, such as `ablation report study=NAME`."""
    where = [] if out == Path("runs") else [f"out={shlex.quote(str(out))}"]
    words = [f"study={shlex.quote(study)}", *where, *map(shlex.quote, more)]
    return " ".join(["ablation", name, *words])


def _name(folder: Path) -> str:
    """The study's own name, which its folder need not have."""
    names = studies_in(folder)
    return names[0] if names else folder.name


def _summary(out: Path, folder: Path) -> StudySummary:
    name = _name(folder)
    try:
        if plan_file(out, name).parent != folder:
            raise StoreError(renamed_text(out, folder, name))
        status = study_status(out, name)
        report, outdated = _report(folder)
    except (StoreError, UsageError, OSError) as error:
        return StudySummary(name, str(folder), problem=one_line(error, 400))
    verdict, headline = str(report.get("verdict", "")), str(report.get("headline", ""))
    summary = StudySummary(
        name, str(folder), len(status.runs), status.counts, verdict, headline, bool(verdict) and outdated
    )
    return dataclasses.replace(summary, next=_next(out, summary, status))


def _report(folder: Path) -> tuple[dict[str, Any], bool]:
    """Content of the last report's verdict, and whether a run has ended after it."""
    path = folder / "report" / VERDICT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written = path.stat().st_mtime
    except (OSError, ValueError, RecursionError):
        return {}, False
    later = any(done.stat().st_mtime > written for done in folder.glob("*/*/DONE"))
    return (content if isinstance(content, dict) else {}), later


def _next(out: Path, summary: StudySummary, status: StudyStatus) -> str:
    if summary.counts.get("running"):
        return command("status", summary.study, out, "watch=true")
    if any(summary.counts.get(name) for name in MORE_WORK):
        return _launch(out, summary, status)
    if not summary.verdict or summary.outdated:
        return command("report", summary.study, out) if summary.counts.get("finished") else ""
    confirmed = plan_file(out, f"{summary.study}_confirm").is_file()
    if summary.verdict == "better" and not confirmed and not summary.study.endswith("_confirm"):
        seed = max(run.seed for run in status.runs) + 1
        return command("confirm", summary.study, out, f"seeds={seed}-{seed + 4}")
    return ""


def _launch(out: Path, summary: StudySummary, status: StudyStatus) -> str:
    """The whole study where its sweep file is at hand, else its first run that is not done."""
    retry = ["retry=failed"] if not any(summary.counts.get(name) for name in MORE_WORK[:2]) else []
    if Path("sweeps", f"{summary.study}.yaml").is_file():
        where = [] if out == Path("runs") else [f"out={override_text(str(out))}"]
        return shlex.join(["ablation", "train", "-m", f"sweeps={summary.study}", *where, *retry])
    first = next(run for run in status.runs if run.status in MORE_WORK)
    planned = {run.key: run for run in read_plan(plan_file(out, summary.study)).runs}
    return planned[first.key].command
