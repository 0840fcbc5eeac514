"""What became of each run of a study, from the plan and the runs' folders alone.

Neither MLflow nor the launcher is needed, so it works from another terminal, from another machine
that sees the folder, and after everything that ran has gone. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import StoreError, UsageError, one_line
from ablation.records import PlannedRun, metric_and_level
from ablation.study.pace import Pace, makespan_s, pace_of
from ablation.study.plan_file import plan_file, refuse_renamed
from ablation.tracking.run_folder import DONE_STATES, OWN_FOLDER, RunFolder
from ablation.tracking.study_folder import read_plan

STATUSES = ("finished", "diverged", "running", "interrupted", "failed", "pruned", "to do")
"""In words for a person; the order in which they are counted. `interrupted` goes on when launched again."""


def run_status(folder: RunFolder) -> str:
    """One of STATUSES.

    A folder that says RUNNING while nobody trains it was left by a process that was killed: it is
    interrupted. Told by the run's lock and never by a process id, which another process may have now.

    Raises:
        StoreError: state.json is damaged.
    """
    state = folder.state
    if state in DONE_STATES:
        return state.lower()
    if folder.in_training:
        return "running"
    if state == "MISSING":
        return "to do"
    return {"FAILED": "failed", "PRUNED": "pruned"}.get(state, "interrupted")


@dataclass(frozen=True)
class RunStatus:
    """One run as it stands.

    Attributes:
        status: one of STATUSES.
        epoch: finished epochs; of a run that is not running, those it would go on from.
        value: the last one of the study's metric, None before the first evaluation.
        images_per_s: of the last epoch.
        left_s: seconds until the run ends if it goes on as before; None where nothing is known.
        note: why it is as it is; one line, may be empty.
    """

    arm: str
    seed: int
    key: str
    status: str
    epoch: int
    epochs: int
    value: float | None = None
    images_per_s: float | None = None
    left_s: float | None = None
    note: str = ""
    folder: str = ""
    host: str = ""


@dataclass(frozen=True)
class StudyStatus:
    """A study as it stands.

    Attributes:
        metric: what `value` of the runs is.
        left_s: until the last of the runs that are running or waiting ends, with as many at a time
            as there are now; None while none is running.
        others: runs of the study's folder that the plan does not have (any more).
    """

    study: str
    metric: str
    runs: list[RunStatus]
    left_s: float | None
    others: int

    @property
    def counts(self) -> dict[str, int]:
        """Status -> runs, those that occur, in the order of STATUSES."""
        numbers = Counter(run.status for run in self.runs)
        return {name: numbers[name] for name in STATUSES if numbers[name]}

    def as_json(self) -> dict[str, Any]:
        """Plain values only; what is not a finite number becomes null."""
        content = dataclasses.asdict(self) | {"counts": self.counts}
        for run in content["runs"]:
            for name in ("value", "images_per_s", "left_s"):
                if run[name] is not None and not math.isfinite(run[name]):
                    run[name] = None
        return content


def study_status(out: Path, study: str) -> StudyStatus:
    """Look at every planned run.

    Raises:
        UsageError: no such study; the message names those that exist.
        StoreError: the plan is damaged.
    """
    refuse_renamed(out, study)
    path = plan_file(out, study)
    if not path.is_file():
        known = sorted(plan.parent.name for plan in out.glob("*/plan.json"))
        studies = f"are in {out}/: {', '.join(known)}" if known else f"is no study in {out}/"
        raise UsageError(f"study={study}: no {path}; there {studies} (out=DIR names another folder)")
    plan = read_plan(path)
    metric, _ = metric_and_level(plan.declared)
    paces: dict[str, Pace] = {}
    runs = [planned_run_status(out, study, planned, metric, paces) for planned in plan.runs]
    planned_folders = {run.folder for run in runs}
    others = sum(str(file.parent) not in planned_folders for file in path.parent.glob("*/*/run.json"))
    return StudyStatus(study, metric, runs, _left(runs, plan.runs, paces), others)


def planned_run_status(
    out: Path, study: str, planned: PlannedRun, metric: str, paces: dict[str, Pace] | None = None
) -> RunStatus:
    """One planned run as its folder shows it.

    Args:
        planned: with its parameters, for the number of epochs.
        paces: the run's pace, where it has one, is added here under its key.
    """
    folder = RunFolder.of(out, study, planned.arm, planned.seed, planned.key)
    epochs = _whole(planned, "train.epochs", 0)
    unstarted = RunStatus(planned.arm, planned.seed, planned.key, "to do", 0, epochs, folder=str(folder.path))
    try:
        status = run_status(folder)
        lines = folder.metrics()
        state, own = folder.read_json("state.json"), folder.read_json("checkpoint.json")
    except (StoreError, OSError) as error:
        return dataclasses.replace(unstarted, status="failed", note=one_line(error, 300))
    resumes = folder.checkpoint_epoch
    file = str(own.get("file", ""))
    own_checkpoint = file if (folder.file(OWN_FOLDER) / file).is_file() else ""
    epoch = resumes if status in ("interrupted", "failed", "pruned") else lines[-1]["epoch"] if lines else 0
    pace = pace_of(lines)
    if pace is not None and paces is not None:
        paces[planned.key] = pace
    left = None
    if pace is not None and status == "running":
        since_s = max(0.0, time.time() - lines[-1]["time_ms"] / 1000)
        # A run that was resumed just now has its last line from before the interruption.
        since_s = min(since_s, pace.train_s + pace.eval_s)
        left = max(0.0, pace.left_s(epoch, epochs, _eval_every(planned)) - since_s)
    values = [line["metrics"][metric] for line in lines if metric in line["metrics"]]
    return dataclasses.replace(
        unstarted,
        status=status,
        epoch=epoch,
        value=values[-1] if values else None,
        images_per_s=lines[-1]["metrics"].get("time/images_per_s") if lines else None,
        left_s=left,
        note=_note(status, resumes, epochs, state, own_checkpoint),
        host=str(state.get("host", "")),
    )


def _note(status: str, resumes: int, epochs: int, state: dict[str, Any], checkpoint: str) -> str:
    """Why a run is as it is.

    Args:
        checkpoint: of a command: the file from which it goes on by itself; "" where there is none.
    """
    reason = one_line(state.get("reason", ""), 300)
    if status == "interrupted":
        on = (
            f"goes on from epoch {resumes} of {epochs}"
            if resumes
            else "starts again: it had no checkpoint yet"
        )
        if checkpoint:
            on = f"its trainer goes on from {checkpoint}"
        if state.get("state") == "RUNNING":
            reason = "its process is gone"
        elif state.get("state") == "STOPPED":
            reason = "stopped as asked"
        return f"{reason.partition(';')[0]}; {on}" if reason else on
    if status == "pruned":
        return f"{reason}; goes on from epoch {resumes} with halving.enabled=false"
    return reason


def _eval_every(planned: PlannedRun) -> int:
    return max(_whole(planned, "train.eval_every", 1), 1)


def _whole(planned: PlannedRun, name: str, default: int) -> int:
    """A parameter that is a whole number; runs that were imported have none.

    Raises:
        StoreError: the plan has something else there.
    """
    text = planned.params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise StoreError(
            f"plan.json: arm {one_line(planned.arm, 80)!r} seed {planned.seed}: {name} is "
            f"{one_line(text, 40)!r}, must be a whole number; delete the plan and launch the study again"
        )
    return int(text)


def _left(runs: list[RunStatus], planned: list[PlannedRun], paces: dict[str, Pace]) -> float | None:
    """As many runs at a time as now; a run without a pace of its own gets the mean of the others."""
    slots = sum(run.status == "running" for run in runs)
    if not slots or not paces:
        return None
    mean = Pace(
        *(sum(values) / len(paces) for values in zip(*map(dataclasses.astuple, paces.values()), strict=True))
    )
    durations = []
    for run, plan in sorted(zip(runs, planned, strict=True), key=lambda pair: pair[0].status != "running"):
        if run.left_s is not None:
            durations.append(run.left_s)
        elif run.status in ("running", "interrupted", "to do"):
            pace = paces.get(run.key, mean)
            durations.append(pace.left_s(run.epoch, run.epochs, _eval_every(plan)))
    return makespan_s(durations, slots)
