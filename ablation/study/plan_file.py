"""plan.json: the runs that a study consists of, what it declared, and the one data set that they share."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ablation.errors import StoreError, UsageError, one_line
from ablation.files import exclusive_lock, write_json
from ablation.records import Declaration, Plan, PlannedRun, StudyData
from ablation.tracking.run_folder import DONE_STATES, RunFolder
from ablation.tracking.study_folder import read_plan, study_folder


def plan_file(out: Path, study: str) -> Path:
    """runs/<study>/plan.json."""
    return study_folder(out, study) / "plan.json"


def studies_in(folder: Path) -> list[str]:
    """The studies whose runs lie in a folder, as they say themselves; 0.1.0 could put two into one."""
    names = set()
    for path in folder.glob("*/*/run.json"):
        try:
            names.add(str(json.loads(path.read_text(encoding="utf-8"))["study"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return sorted(names)


def refuse_renamed(out: Path, study: str) -> None:
    """Refuse a study whose folder was renamed: its runs would be trained again, or two studies mixed.

    Raises:
        UsageError: the study's folder holds another study, or another folder holds this one.
    """
    folder = study_folder(out, study)
    if folder.is_dir():
        names = studies_in(folder)
        if names and study not in names:
            raise UsageError(
                f"study={study}: {folder}/ holds runs of study {names[0]}, so it was renamed or copied; "
                f"rename it to {study_folder(out, names[0])}/, or name another study"
            )
        return
    for plan in sorted(out.glob("*/plan.json")):
        if study in studies_in(plan.parent) and plan.parent != folder:
            raise UsageError(
                f"study={study}: its runs are in {plan.parent}/, which was renamed; rename it back to "
                f"{folder}/, or name another study"
            )


@dataclass(frozen=True)
class OtherData:
    """Runs of a study's plan that were made from other data than a launch has.

    Attributes:
        data: what they were made from; where they differ, what the first one was.
        runs: those that have a folder, so that something would be lost from the study.
        finished: how many of them ended.
        same_data: runs of the plan that were made from the launch's data.
    """

    study: str
    data: StudyData
    runs: list[PlannedRun]
    finished: int
    same_data: list[PlannedRun]

    @property
    def what(self) -> str:
        """4 finished and 2 other runs."""
        rest = len(self.runs) - self.finished
        parts = [f"{self.finished} finished"] if self.finished else []
        parts += [f"{rest} unfinished"] if rest else []
        return " and ".join(parts) + (" run" if len(self.runs) == 1 else " runs")

    def refusal(self, now: StudyData) -> str:
        """What differs, and the two ways on."""
        return (
            f"study={self.study}: {self.what} in it are of other data: {self.data}; this launch has {now}. "
            f"Runs of different data are never compared: name another study, as in study={self.study}_2, "
            "or give replace=true, with which those runs leave the plan"
        )

    def warning(self, now: StudyData) -> str:
        """Which runs leave the plan."""
        names = ", ".join(f"{run.arm} seed {run.seed}" for run in self.runs)
        return (
            f"study {self.study}: {self.what} are of other data (fingerprint {self.data.fingerprint[:8]} -> "
            f"{now.fingerprint[:8]}) and leave the plan; their folders stay: {one_line(names, 400)}"
        )


def other_data(out: Path, study: str, plan: Plan, data: StudyData) -> OtherData | None:
    """The planned runs that were made from other data; None where there are none.

    A run's own run.json says what it was made from. A run that never started has none, and nothing is
    lost when it leaves the plan.

    Raises:
        StoreError: a run.json is damaged.
    """
    other: list[PlannedRun] = []
    same: list[PlannedRun] = []
    finished, made_from = 0, None
    for run in plan.runs:
        folder = RunFolder.of(out, study, run.arm, run.seed, run.key)
        recorded = data_of_run(folder)
        if recorded is None:
            continue
        if recorded.fingerprint == data.fingerprint:
            same.append(run)
            continue
        other.append(run)
        finished += folder.state in DONE_STATES
        made_from = made_from or recorded
    return None if made_from is None else OtherData(study, made_from, other, finished, same)


def require_same_data(out: Path, study: str, data: StudyData) -> None:
    """Refuse a launch that goes on from the results of `study`, such as its confirmation, on other data.

    Raises:
        UsageError: a run of the study was made from other data.
    """
    other = other_data(out, study, read_plan(plan_file(out, study)), data)
    if other is not None:
        raise UsageError(
            f"study={study}: {other.what} in it are of other data: {other.data}; now there are {data}. Its "
            "result does not hold for these: launch a study on them, or put the former data back"
        )


def data_of_run(folder: RunFolder) -> StudyData | None:
    """What a run was made from, as its run.json says; None where it has not started."""
    facts = folder.read_json("run.json")
    if "fingerprint" not in facts:
        return None
    try:
        settings, profile = facts.get("data", {}), facts.get("data_profile", {})
        counts = [int(profile.get(name, 0)) for name in ("train_images", "val_images")]
        return StudyData(str(facts["fingerprint"]), source_text(settings), *counts)
    except (AttributeError, TypeError, ValueError) as error:
        reason = one_line(error, 100)
        raise StoreError(f"{folder.file('run.json')}: damaged ({reason}); delete the run's folder") from None


def source_text(settings: dict[str, object]) -> str:
    """The setting that names a data set: its root folder, or its name where it has none."""
    root = settings.get("root")
    return f"data.root={root}" if root else f"data={settings.get('name', 'unknown')}"


def extend_plan(
    out: Path,
    study: str,
    new: list[PlannedRun],
    declaration: Declaration | None = None,
    data: StudyData | None = None,
    replace_data: bool = False,
) -> tuple[Plan, OtherData | None]:
    """Add runs, and what is declared about their analysis, to the plan.

    A study may be launched in several parts, so the plan is their union. The same arm and seed
    with another key means that the configuration was edited: the new run replaces the old one.
    A declaration that differs from the last one is added to it and never replaces it, so that a
    margin which was changed after the results were seen stays visible.

    All runs of a plan are of one data set. With `replace_data`, runs of other data leave it.

    Args:
        data: what the new runs are made from; None: not known, nothing is checked.

    Returns:
        The whole plan, and the runs that left it because of their data.

    Raises:
        UsageError: runs of the plan were made from other data, and `replace_data` is false. The plan is
            as before.
        StoreError: the plan is damaged.
    """
    refuse_renamed(out, study)
    path = plan_file(out, study)
    with exclusive_lock(path.with_suffix(".lock"), wait=True):
        plan = read_plan(path)
        replaced = None if data is None else other_data(out, study, plan, data)
        if replaced is not None and data is not None and not replace_data:
            raise UsageError(replaced.refusal(data))
        plan = _extended(plan, new, declaration, data, replaced)
        write_json(path, plan.to_json())
    return plan, replaced


def _extended(
    plan: Plan,
    new: list[PlannedRun],
    declaration: Declaration | None,
    data: StudyData | None,
    replaced: OtherData | None,
) -> Plan:
    planned = plan.runs
    if replaced is not None:
        planned = replaced.same_data
    elif data is not None and plan.data is not None and plan.data.fingerprint != data.fingerprint:
        planned = []  # nothing of the former data has started
    left_out = {*plan.left_out, *(run.key for run in plan.runs if run not in planned)}
    runs = {(run.arm, run.seed): run for run in [*planned, *new]}
    declared = list(plan.declared)
    if declaration is not None and (not declared or declared[-1].content != declaration.content):
        declared.append(declaration)
    return replace(
        plan,
        runs=list(runs.values()),
        declared=declared,
        data=data or plan.data,
        left_out=sorted(left_out - {run.key for run in new}),
    )
