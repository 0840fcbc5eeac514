"""Reading studies back from the store: names, records for the analysis, files, folders."""

from __future__ import annotations

import logging
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.errors import StoreError, UsageError, one_line
from ablation.files import metric_name
from ablation.records import STATES, Plan, RunRecord, StudyRecord, TakenLook
from ablation.tracking import artifacts, histories
from ablation.tracking.histories import Points, number_in_store
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.run_places import RunPlaces, current_artifacts
from ablation.tracking.store import DISPLAY_NAME, Store
from ablation.tracking.study_folder import read_plan, studies_in, study_folder
from ablation.tracking.taken_looks import TAG, looks_of_folder, looks_of_text, merged

if TYPE_CHECKING:
    from ablation.tracking.store import Run

log = logging.getLogger(__name__)

MAKE_AGAIN = "move the store away and run `ablation sync`, which makes it again from the runs' folders"


def fetch_artifact(store: Store, run_id: str, path: str) -> Path | None:
    """A file that a run logged, for where the run's folder is on another machine; None if it has none.

    A file of this machine is read where it lies. Others are downloaded once, into
    $XDG_CACHE_HOME/ablation, and again when the run has ended anew.
    """
    with store.errors():
        return artifacts.fetch(store.client(), store.uri, run_id, path)


def study_names(store: Store) -> list[str]:
    """The names of the studies in the store."""
    with store.errors():
        experiments = store.client().search_experiments()
    return sorted(str(experiment.name) for experiment in experiments if experiment.name != "Default")


def load_study(store: Store, name: str, out: Path | None = None) -> StudyRecord:
    """Everything the analysis needs to know of a study.

    A run whose arm and seed the current plan gives another key is SUPERSEDED: it was trained with
    a configuration that has been edited since. So is a run of data that the study no longer has.
    The plan is read in the study's folder, else in MLflow. What the store names and cannot be found is
    listed in StudyRecord.missing, with a warning each.

    Args:
        out: where the runs' folders are looked for first, as in the command's out=.

    Raises:
        UsageError: no such study; the message names those that exist.
    """
    places = RunPlaces(store.base, [] if out is None else [out])
    _check_exists(store, places)
    with store.errors():
        experiment = store.client().get_experiment_by_name(name)
    if experiment is None:
        names = ", ".join(study_names(store)) or "none"
        folder = _folder_of(name, places)
        hint = "" if folder is None else f"; `ablation sync` enters the runs in {folder}"
        raise UsageError(f"study={name}: no such study in {store.uri}; there are: {names}{hint}")
    with store.errors():
        runs = list(store.runs(experiment.experiment_id))
        artifacts.remember(store.uri, runs)
        points = _points(store, experiment.experiment_id, runs)
        plan, missing = _plan(store, experiment.experiment_id, name, runs, places)
    records = [_record(store, run, points.get(run.info.run_id, {}), plan, places) for run in runs]
    missing += _missing_files(store, runs, records)
    for line in missing:
        log.warning("study %s: %s", name, line)
    looks = _looks(store, experiment.experiment_id, name, places)
    return StudyRecord(
        name, records, list(plan.runs), plan.description, tuple(plan.declared), tuple(missing), looks
    )


def _looks(store: Store, experiment: str, name: str, places: RunPlaces) -> tuple[TakenLook, ...]:
    """The reports that drew verdicts on the study, from its folders and from MLflow."""
    looks = [look for root in places.roots for look in looks_of_folder(study_folder(root, name))]
    with store.errors():
        parent = store.parent_run(experiment, name, create=False)
        text = "" if parent is None else store.client().get_run(parent).data.tags.get(TAG, "")
    return merged([*looks, *(looks_of_text(text, f"{store.uri}: tag {TAG} of run {parent}") if text else [])])


def _check_exists(store: Store, places: RunPlaces) -> None:
    path = store.sqlite_file
    if path is None or path.exists():
        return
    runs = next((root for root in places.roots if any(root.glob("*/*/*/run.json"))), None)
    if runs is None:
        raise UsageError(f"{path}: no MLflow store here; run a study first, or go to where it was run")
    out = "" if runs.name == "runs" else f" out={runs}"
    raise UsageError(f"{path}: no MLflow store here; `ablation sync{out}` makes it from the runs in {runs}/")


def _folder_of(study: str, places: RunPlaces) -> Path | None:
    folders = (study_folder(root, study) for root in places.roots)
    return next((folder for folder in folders if study in studies_in(folder)), None)


def _plan(
    store: Store, experiment: str, name: str, runs: list[Run], places: RunPlaces
) -> tuple[Plan, list[str]]:
    """The study's plan, and a line if it cannot be found although the study had one."""
    published, looked_in = _published_plan(store, experiment, name)
    for root in places.roots:
        plan = read_plan(study_folder(root, name) / "plan.json")
        # A folder of the same name may be of another project, whose store this is not.
        if {*plan.left_out, *(run.key for run in plan.runs)} & {run.data.tags.get("key") for run in runs}:
            return replace(plan, description=published.description if published else ""), []
    if published is None and looked_in:
        return Plan(), [
            f"plan.json, with what the study declared, is neither in its folder nor in {looked_in}; give "
            "out=DIR, the folder of its runs"
        ]
    return published or Plan(), []


def _published_plan(store: Store, experiment: str, name: str) -> tuple[Plan | None, str]:
    """(the plan.json of the study's parent run or None, where it was looked for or "")."""
    parent = store.parent_run(experiment, name, create=False)
    if parent is None:
        return None, ""
    client, nowhere = store.client(), (None, f"MLflow's run {parent}")
    place = current_artifacts(client.get_run(parent).info.artifact_uri, store.base)
    if place is not None:
        path = place / "plan.json"
        return (read_plan(path), "") if path.is_file() else nowhere
    if not any(file.path == "plan.json" for file in client.list_artifacts(parent)):
        return nowhere
    with tempfile.TemporaryDirectory() as folder:  # each time anew: a plan grows
        return read_plan(Path(client.download_artifacts(parent, "plan.json", folder))), ""


def _record(
    store: Store,
    run: Run,
    points: Mapping[str, Sequence[tuple[int, float]]],
    plan: Plan,
    places: RunPlaces,
) -> RunRecord:
    """What the store has of one run."""
    tags = run.data.tags
    try:
        _require_texts(tags)
        arm, seed, key, study = tags["arm"], int(tags["seed"]), tags["key"], tags["study"]
        folder = places.find(tags.get("folder", ""), seed, key, run.info.start_time)
        names = _display_names(tags, run.data.metrics, folder)
        metrics = {names[short]: number_in_store(short, value) for short, value in run.data.metrics.items()}
        state = tags.get("state", "RUNNING")
        if state not in STATES:
            raise ValueError(f"tag state is {state!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(_damaged(store, run, error)) from None
    superseded = _why_superseded(plan, arm, seed, key)
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    return RunRecord(
        run_id=run.info.run_id,
        study=study,
        arm=arm,
        seed=seed,
        key=key,
        state="SUPERSEDED" if superseded else state,
        params=dict(run.data.params),
        metrics=metrics,
        history=histories.history({names.get(short, short): values for short, values in points.items()}),
        folder="" if folder is None else str(folder),
        reason=superseded or tags.get("reason", ""),
        fingerprint=str(inputs[0].dataset.digest) if inputs else "",
    )


def _damaged(store: Store, run: Run, error: Exception) -> str:
    reason = f"no tag {error}" if isinstance(error, KeyError) else one_line(error, 200)
    return f"{store.uri}: run {run.info.run_id}: {reason}; {MAKE_AGAIN}"


def _require_texts(tags: Mapping[str, object]) -> None:
    for name, value in tags.items():
        if not isinstance(value, str):  # SQLite takes bytes in a column of text
            raise TypeError(f"tag {one_line(name, 60)} is {one_line(repr(value), 60)}, not a text")


def _display_names(tags: Mapping[str, str], stored: Iterable[str], folder: Path | None) -> dict[str, str]:
    """MLflow's name -> own name of a run's metrics.

    Stores of version 0.1.0 have no tags with the names of classes that MLflow refuses; the run's folder
    has them.
    """
    names = {short: tags.get(DISPLAY_NAME + short, short) for short in stored}
    changed = [short for short, name in names.items() if short == name and _RENAMED.search(short)]
    if changed and folder is not None:
        with suppress(StoreError):
            own = {
                metric_name(name): name for line in RunFolder(folder).metrics() for name in line["metrics"]
            }
            names |= {short: own.get(short, short) for short in changed}
    return names


_RENAMED = re.compile(r"-[0-9a-f]{6}$")
"""How files.metric_name ends a name that it had to change."""


def _why_superseded(plan: Plan, arm: str, seed: int, key: str) -> str:
    """Why a run is no longer part of its study; "" where it is."""
    keys = [run.key for run in plan.runs if (run.arm, run.seed) == (arm, seed)]
    if key in plan.left_out:
        return "trained on other data than the study has now"
    return "trained with a configuration that was edited since" if keys and key not in keys else ""


def _missing_files(store: Store, runs: list[Run], records: list[RunRecord]) -> list[str]:
    """A line for each finished run whose files are neither in its folder nor among MLflow's artifacts."""
    lines = []
    for run, record in zip(runs, records, strict=True):
        if record.folder or record.state != "FINISHED":
            continue
        place = current_artifacts(run.info.artifact_uri, store.base)
        if place is not None and not place.is_dir():
            recorded = run.data.tags.get("folder", "a folder")
            lines.append(
                f"the files of {record.arm} seed {record.seed} ({record.key[:8]}) are neither in {recorded} "
                f"nor in {place}; give out=DIR, the folder of its runs"
            )
    return lines


def _points(store: Store, experiment: str, runs: list[Run]) -> Points:
    """Every run's history: in bulk where the store can be asked so, else run by run."""
    ids = [run.info.run_id for run in runs]
    try:
        if store.sqlite_file is not None:
            return histories.sqlite_points(store.sqlite_file, experiment)
        if store.uri.startswith(("http://", "https://")):
            return histories.server_points(store.histories_in_bulk, ids)
    except TypeError as error:
        raise StoreError(f"{store.uri}: {error}; {MAKE_AGAIN}") from None
    except (LookupError, sqlite3.Error, ValueError) as error:
        log.info("%s: reading run by run, which is slow: %s", store.uri, one_line(error, 200))
    return histories.points_one_by_one(store.client(), runs)


def find_folders(store: Store, prefix: str) -> list[Path]:
    """The folders of the runs whose key or MLflow run id begins with `prefix`, in the store or on disk."""
    places = RunPlaces(store.base)
    folders = {folder.resolve() for folder in places.with_key(prefix)}
    if store.sqlite_file is not None and not store.sqlite_file.exists():
        return sorted(folders)
    with store.errors():
        experiments = [experiment.experiment_id for experiment in store.client().search_experiments()]
        runs = [run for experiment in experiments for run in store.runs(experiment)]
    for run in runs:
        tags = run.data.tags
        try:
            _require_texts(tags)
            seed, key = int(tags["seed"]), tags["key"]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(_damaged(store, run, error)) from None
        if run.info.run_id.startswith(prefix) or key.startswith(prefix):
            recorded = tags.get("folder", "")
            folder = places.find(recorded, seed, key, run.info.start_time)
            folders.add(Path(recorded) if folder is None else folder.resolve())
    return sorted(folders)
