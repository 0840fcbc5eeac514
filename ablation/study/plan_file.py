"""plan.json: the runs that a study consists of, what it declared, and the one data set that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ablation.errors import StoreError, UsageError, one_line
from ablation.files import exclusive_lock, write_json
from ablation.records import Declaration, Plan, PlannedRun, StudyData
from ablation.tracking.run_folder import DONE_STATES, RunFolder
from ablation.tracking.study_folder import read_plan, studies_in, study_folder


def plan_file(out: Path, study: str) -> Path:
    """runs/<study>/plan.json."""
    return study_folder(out, study) / "plan.json"


def refuse_renamed(out: Path, study: str) -> None:
    """Refuse a study whose folder was renamed: its runs would be trained again, or two studies mixed.

    A study has the name that its runs have, whatever their folder is called.

    Raises:
        UsageError: the study's folder holds another study, or another folder holds this one.
    """
    folder = study_folder(out, study)
    if folder.is_dir():
        names = studies_in(folder)
        if names and study not in names:
            raise UsageError(f"study={study}: {renamed_text(out, folder, names[0])}")
        return
    for other in _folders(out):
        if study in studies_in(other):
            raise UsageError(f"study={study}: {renamed_text(out, other, study)}")


def refuse_renamed_folders(out: Path) -> None:
    """Refuse a folder of runs in which any study's folder was renamed or copied.

    Raises:
        UsageError: names the first such folder.
    """
    for folder in _folders(out):
        for name in studies_in(folder):
            if study_folder(out, name) != folder:
                raise UsageError(f"out={out}: {renamed_text(out, folder, name)}")


def renamed_text(out: Path, folder: Path, study: str) -> str:
    """What is wrong with a folder that holds runs of a study whose folder is another one, and what to do."""
    home = study_folder(out, study)
    if home.exists():
        advice = f"that study's folder is {home}/: move the copy out of {out}/, or give study={study}"
    else:
        advice = f"rename it back to {home}/ and give study={study}"
    return f"{folder}/ holds runs of study {study}, so it was renamed or copied; {advice}"


def _folders(out: Path) -> list[Path]:
    return sorted({path.parents[2] for path in out.glob("*/*/*/run.json")})


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
        """4 finished and 2 unfinished runs."""
        rest = len(self.runs) - self.finished
        parts = [f"{self.finished} finished"] if self.finished else []
        parts += [f"{rest} unfinished"] if rest else []
        return f"{' and '.join(parts)} {self._verb('run', 'runs')}"

    def _verb(self, of_one: str, of_several: str) -> str:
        return of_one if len(self.runs) == 1 else of_several

    def refusal(self, now: StudyData) -> str:
        """What differs, and the two ways on."""
        return (
            f"study={self.study}: {self.in_it}; this launch has {now}. "
            f"Runs of different data are never compared: name another study, as in study={self.study}_2, "
            f"or give replace=true, with which {self._verb('that run leaves', 'those runs leave')} the plan"
        )

    @property
    def in_it(self) -> str:
        """How many runs are of other data, and of which."""
        return f"{self.what} in it {self._verb('is', 'are')} of other data: {self.data}"

    def warning(self, now: StudyData) -> str:
        """Which runs leave the plan."""
        names = ", ".join(f"{run.arm} seed {run.seed}" for run in self.runs)
        leave = self._verb("leaves the plan; its folder stays", "leave the plan; their folders stay")
        return (
            f"study {self.study}: {self.what} {self._verb('is', 'are')} of other data (fingerprint "
            f"{self.data.fingerprint[:8]} -> {now.fingerprint[:8]}) and {leave}: {one_line(names, 400)}"
        )


def other_data(out: Path, study: str, plan: Plan, data: StudyData) -> OtherData | None:
    """The runs of a study that were made from other data; None where there are none.

    A run's own run.json says what it was made from. A run that never started has none, and nothing is
    lost when it leaves the plan. Where no run of the plan has started, for instance because plan.json was
    deleted, the folders of the study say which data it has.

    Raises:
        StoreError: a run.json is damaged.
    """
    started = [
        (run, folder, recorded)
        for run in plan.runs
        if (recorded := data_of_run(folder := RunFolder.of(out, study, run.arm, run.seed, run.key)))
    ]
    started = started or list(_unplanned(out, study, plan))
    other = [entry for entry in started if entry[2].fingerprint != data.fingerprint]
    if not other:
        return None
    finished = sum(folder.state in DONE_STATES for _, folder, _ in other)
    same = [run for run, _, recorded in started if recorded.fingerprint == data.fingerprint]
    return OtherData(study, other[0][2], [run for run, _, _ in other], finished, same)


def _unplanned(out: Path, study: str, plan: Plan) -> Iterator[tuple[PlannedRun, RunFolder, StudyData]]:
    """The runs that lie in a study's folder, and that no plan has left out."""
    for path in sorted(study_folder(out, study).glob("*/*/run.json")):
        folder = RunFolder(path.parent)
        facts, recorded = folder.read_json("run.json"), data_of_run(folder)
        if recorded is None or facts.get("study") != study or facts.get("key") in plan.left_out:
            continue
        try:
            row = {name: facts[name] for name in ("arm", "seed", "key", "command")}
            run = PlannedRun.read(row | {"params": facts.get("params", {})})
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({one_line(error, 100)}); delete the run's folder") from None
        yield run, folder, recorded


def require_same_data(out: Path, study: str, data: StudyData) -> None:
    """Refuse a launch that goes on from the results of `study`, such as its confirmation, on other data.

    Raises:
        UsageError: a run of the study was made from other data.
    """
    other = other_data(out, study, read_plan(plan_file(out, study)), data)
    if other is not None:
        raise UsageError(
            f"study={study}: {other.in_it}; now there are {data}. Its "
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
    former = plan.runs if replaced is None else [*plan.runs, *replaced.runs]
    left_out = {*plan.left_out, *(run.key for run in former if run not in planned)}
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
