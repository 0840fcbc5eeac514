"""Reading studies back from the store: names, records for the analysis, files, folders."""

from __future__ import annotations

import json
import logging
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablation.errors import UsageError, one_line
from ablation.records import Plan, RunRecord, StudyRecord
from ablation.tracking import artifacts, histories
from ablation.tracking.histories import Points
from ablation.tracking.store import Run, Store

log = logging.getLogger(__name__)


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
    return sorted(experiment.name for experiment in experiments if experiment.name != "Default")


def load_study(store: Store, name: str) -> StudyRecord:
    """Everything the analysis needs to know of a study.

    A run whose arm and seed the current plan gives another key is SUPERSEDED: it was trained with
    a configuration that has been edited since. So is a run of data that the study no longer has.

    Raises:
        UsageError: no such study; the message names those that exist.
    """
    path = store.sqlite_file
    if path is not None and not path.exists():
        raise UsageError(f"{path}: no MLflow store here; run a study first, or go to where it was run")
    with store.errors():
        experiment = store.client().get_experiment_by_name(name)
    if experiment is None:
        names = ", ".join(study_names(store)) or "none"
        raise UsageError(f"study={name}: no such study in {store.uri}; there are: {names}")
    with store.errors():
        plan = _plan(store, experiment.experiment_id, name)
        runs = list(store.runs(experiment.experiment_id))
        artifacts.remember(store.uri, runs)
        points = _points(store, experiment.experiment_id, runs)
        records = [_record(run, points.get(run.info.run_id, {}), plan) for run in runs]
    return StudyRecord(name, records, list(plan.runs), plan.description, tuple(plan.declared))


def _plan(store: Store, experiment: str, name: str) -> Plan:
    """The plan.json of the study's parent run; an empty plan where there is none."""
    client, parent = store.client(), store.parent_run(experiment, name, create=False)
    if parent is None or not any(file.path == "plan.json" for file in client.list_artifacts(parent)):
        return Plan()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(parent, "plan.json", folder))
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))


def _record(run: Run, points: Mapping[str, Sequence[tuple[int, float]]], plan: Plan) -> RunRecord:
    """What the store has of one run."""
    tags = run.data.tags
    arm, seed, key = tags["arm"], int(tags["seed"]), tags["key"]
    superseded = _why_superseded(plan, arm, seed, key)
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    return RunRecord(
        run_id=run.info.run_id,
        study=tags["study"],
        arm=arm,
        seed=seed,
        key=key,
        state="SUPERSEDED" if superseded else tags.get("state", "RUNNING"),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        history=histories.history(points),
        folder=tags.get("folder", ""),
        reason=superseded or tags.get("reason", ""),
        fingerprint=str(inputs[0].dataset.digest) if inputs else "",
    )


def _why_superseded(plan: Plan, arm: str, seed: int, key: str) -> str:
    """Why a run is no longer part of its study; "" where it is."""
    keys = [run.key for run in plan.runs if (run.arm, run.seed) == (arm, seed)]
    if key in plan.left_out:
        return "trained on other data than the study has now"
    return "trained with a configuration that was edited since" if keys and key not in keys else ""


def _points(store: Store, experiment: str, runs: list[Run]) -> Points:
    """Every run's history: in bulk where the store can be asked so, else run by run."""
    ids = [run.info.run_id for run in runs]
    try:
        if store.sqlite_file is not None:
            return histories.sqlite_points(store.sqlite_file, experiment)
        if store.uri.startswith(("http://", "https://")):
            return histories.server_points(store.histories_in_bulk, ids)
    except (LookupError, sqlite3.Error, ValueError) as error:
        log.info("%s: reading run by run, which is slow: %s", store.uri, one_line(error, 200))
    return histories.points_one_by_one(store.client(), runs)


def find_folders(store: Store, prefix: str) -> list[str]:
    """The folders of the runs whose key or MLflow run id begins with `prefix`."""
    if store.sqlite_file is not None and not store.sqlite_file.exists():
        return []
    with store.errors():
        experiments = [experiment.experiment_id for experiment in store.client().search_experiments()]
        runs = [run for experiment in experiments for run in store.runs(experiment)]
    return [
        run.data.tags["folder"]
        for run in runs
        if run.info.run_id.startswith(prefix) or run.data.tags["key"].startswith(prefix)
    ]
