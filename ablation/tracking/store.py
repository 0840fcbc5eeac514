"""The MLflow store: the only file that imports mlflow.

A run's folder is the truth; mirror.py says what is copied from it and when, this file writes it into
MLflow and reads studies back. Writing is idempotent (a point is identified by metric, epoch, time
and value), so the same code serves live logging, one batch an epoch, and a later replay of what a
lost server missed.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

# Before mlflow is imported: it reads these once.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
# MLflow's own 7 retries and 120 s hold a command for minutes where the server is gone.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

from ablation.errors import StoreError, UsageError, one_line
from ablation.files import metric_name, safe_name
from ablation.records import Declaration, Plan, PlannedRun, StudyRecord
from ablation.tracking import artifacts, chart_view
from ablation.tracking import histories as store_read
from ablation.tracking import uri as store_uri
from ablation.tracking.mirror import Mirror

log = logging.getLogger(__name__)
# It announces every table that it creates; a new store is not worth a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

PARENT = "study"
"""Value of the tag `kind` of the run that stands for a whole study."""

__all__ = ["Mirror", "Store"]


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps things.

    Attributes:
        uri: tracking URI, absolute.
        artifacts: root for the artifacts of new experiments; None leaves it to a server.
    """

    uri: str
    artifacts: str | None

    @classmethod
    def of(cls, uri: str | None, artifacts: str | None) -> Store:
        """Defaults: mlflow.db and mlartifacts/ in the working folder, where `mlflow ui` finds them."""
        return cls(*store_uri.resolve(uri, artifacts))

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, where it is one."""
        return store_uri.sqlite_file(self.uri)

    def client(self) -> MlflowClient:
        """The client of a store that exists; see `prepare`."""
        return _client(self.uri)

    def prepare(self) -> None:
        """Create a new SQLite store whole: in a temporary file, then linked into place.

        Several processes that open a new store at once would each try to create its tables.

        Raises:
            StoreError: the file is no MLflow database.
        """
        path = self.sqlite_file
        if path is None:
            return
        if path.exists() and path.stat().st_size > 0:
            self._check(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            new = Path(folder) / path.name
            with _store_errors(str(path)):
                client = MlflowClient(f"sqlite:///{new}")
                client.search_experiments(max_results=1)
                _dispose(client)
            if path.exists() and path.stat().st_size == 0:
                path.unlink(missing_ok=True)  # what an interrupted creation elsewhere left behind
            with suppress(FileExistsError):  # another process was faster: its store is as whole as ours
                path.hardlink_to(new)
        self._check(path)

    # what a Mirror needs; see mirror.TrackingStore

    @property
    def local(self) -> bool:
        """Whether the store is a file of this machine."""
        return self.sqlite_file is not None

    def errors(self) -> AbstractContextManager[None]:
        """See _store_errors."""
        return _store_errors(self.uri)

    def open_run(self, about: dict[str, Any], folder: Path, started_ms: int, tags: dict[str, str]) -> str:
        """The id of the run of a folder, which is created where there is none.

        Args:
            about: content of run.json.
        """
        client = self.client()
        experiment = experiment_of(self, about["study"], about.get("description", ""))
        found = self._runs_of(experiment, about["key"], folder)
        if not found:
            tags = tags | {"mlflow.parentRunId": str(parent_of(self, experiment, about["study"]))}
            client.create_run(experiment, started_ms, tags, f"{about['arm']} seed{about['seed']}")
            found = self._runs_of(experiment, about["key"], folder)
        run = found[0]
        missing = {key: value for key, value in about["params"].items() if key not in run.data.params}
        if missing:  # they are written last, some at a time: a creation that broke off is completed
            self._describe(run.info.run_id, about | {"params": missing}, folder)
        return str(run.info.run_id)

    def _describe(self, run: str, about: dict[str, Any], folder: Path) -> None:
        """A run's data set, configuration and parameters."""
        client, data = self.client(), about["data"]
        profile = json.dumps(about["data_profile"])
        dataset = Dataset(data["name"], about["fingerprint"][:32], "local", json.dumps(data), profile=profile)
        client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
        if (folder / "config.yaml").exists():
            client.log_artifact(run, str(folder / "config.yaml"))
        params = [Param(key, value[:6000]) for key, value in about["params"].items()]
        for start in range(0, len(params), 100):  # what MLflow takes in one request
            client.log_batch(run, params=params[start : start + 100])

    def _runs_of(self, experiment: str, key: str, folder: Path) -> list[Run]:
        """The folder's run first; more than one where a request was given up but done all the same."""
        client = self.client()
        # By key, then by folder: a folder's name may hold what a filter string cannot quote.
        same_key = client.search_runs([experiment], f"tags.key = '{key}'")
        found = [run for run in same_key if run.data.tags.get("folder") == str(folder)]
        found.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        for extra in found[1:]:
            if not extra.data.metrics:
                client.delete_run(extra.info.run_id)
        return found

    def set_running(self, run: str) -> None:
        """Mark a run as going on."""
        client = self.client()
        client.update_run(run, status="RUNNING")
        client.set_tag(run, "state", "RUNNING")

    def epochs_logged(self, run: str, metric: str) -> set[int]:
        """The epochs at which the run has a point of `metric`."""
        return {point.step for point in self.client().get_metric_history(run, metric)}

    def log_points(self, run: str, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl, with its own epoch and time, in one batch."""
        at = (line["time_ms"], line["epoch"])
        metrics = [Metric(metric_name(k), v, *at) for k, v in line["metrics"].items()]
        self.client().log_batch(run, metrics=metrics)

    def log_file(self, run: str, path: Path, folder: str | None) -> None:
        """Attach a file to a run."""
        self.client().log_artifact(run, str(path), folder)

    def end_run(self, run: str, tags: dict[str, str], status: str, ended_ms: int | None) -> None:
        """The final tags and the final status of a run."""
        client = self.client()
        client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])
        client.set_terminated(run, status, ended_ms)

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise StoreError(
                    f"{path}: not an SQLite database; move it away, or name another tracking.uri"
                )
        with _store_errors(str(path)):
            self.client().search_experiments(max_results=1)


@cache
def _client(uri: str) -> MlflowClient:
    """One client for many questions; what it keeps open to a database, MLflow keeps once for each uri."""
    return MlflowClient(uri)


def _dispose(client: MlflowClient) -> None:
    """Close the connections to a temporary store, so that nothing is written to it afterwards."""
    engine = getattr(client._tracking_client.store, "engine", None)
    if engine is not None:
        engine.dispose()


@contextmanager
def _store_errors(name: str) -> Iterator[None]:
    """Any failure of the store as one line that names it."""
    try:
        yield
    except (StoreError, UsageError):
        raise
    except Exception as error:
        raise StoreError(f"{name}: MLflow cannot use this store: {one_line(error, 300)}") from error


def experiment_of(store: Store, study: str, description: str = "") -> str:
    """The id of the study's experiment, created where it does not exist."""
    client = store.client()
    with _store_errors(store.uri):
        found = client.get_experiment_by_name(study)
        if found is None:
            location = f"{store.artifacts}/{safe_name(study)}" if store.artifacts else None
            # Without its kind the UI opens an experiment on the pages for language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            tags |= {"mlflow.note.content": description} if description else {}
            try:
                return str(client.create_experiment(study, artifact_location=location, tags=tags))
            except MlflowException:
                found = client.get_experiment_by_name(study)  # another process was faster
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise StoreError(
            f"MLflow experiment {study!r} was deleted in {store.uri}: restore it, or rename the study"
        )
    return str(found.experiment_id)


def parent_of(store: Store, experiment: str, study: str, create: bool = True) -> str | None:
    """The id of the run that holds the study's plan and report."""
    client = store.client()
    found = client.search_runs(
        [experiment], f"tags.kind = '{PARENT}'", max_results=1, order_by=["start_time ASC", "run_id ASC"]
    )
    if found:
        return str(found[0].info.run_id)
    if not create:
        return None
    run = client.create_run(experiment, run_name=f"study {study}", tags={"kind": PARENT, "study": study})
    client.set_terminated(run.info.run_id, "FINISHED")
    # Another process may have made one at the same moment: both take the first.
    return parent_of(store, experiment, study, create=False)


def publish_plan(
    store: Store,
    study: str,
    planned: list[PlannedRun],
    description: str,
    declared: Sequence[Declaration] = (),
) -> None:
    """Keep what the study consists of, and what it declared, at its parent run."""
    with _store_errors(store.uri):
        parent = parent_of(store, experiment_of(store, study, description), study)
        assert parent is not None
        store.client().log_dict(parent, Plan(planned, list(declared), description).to_json(), "plan.json")


def publish_files(store: Store, study: str, files: list[Path], folder: str, tags: dict[str, str]) -> str:
    """Attach files to the study's parent run; returns that run's id."""
    client = store.client()
    with _store_errors(store.uri):
        parent = parent_of(store, experiment_of(store, study), study)
        assert parent is not None
        for file in files:
            client.log_artifact(parent, str(file), folder)
        for key, value in tags.items():
            client.set_tag(parent, key, value)
    return parent


def set_experiment(store: Store, study: str, description: str, tags: dict[str, str]) -> str:
    """The text on the study's page in MLflow ('' leaves it), and tags; returns the experiment's id."""
    experiment = experiment_of(store, study)
    tags = tags | ({"mlflow.note.content": description} if description else {})
    with _store_errors(store.uri):
        for key, value in tags.items():
            store.client().set_experiment_tag(experiment, key, value)
    return experiment


def save_chart_view(store: Store, study: str, metric: str, x: str, y: str) -> str:
    """Save charts of the study in MLflow; returns the path of MLflow's page that opens on them.

    Args:
        metric: what is compared, such as val/AP.
        x, y: names of two parameters, for the axes of the contour.
    """
    tags = {chart_view.TAG: chart_view.envelope(f"Study {study}", metric, x, y)}
    return chart_view.path(set_experiment(store, study, "", tags))


# reading


def fetch_artifact(store: Store, run_id: str, path: str) -> Path | None:
    """A file that a run logged, for where the run's folder is on another machine; None if it has none.

    A file of this machine is read where it lies. Others are downloaded once, into
    $XDG_CACHE_HOME/ablation, and again when the run has ended anew.
    """
    with _store_errors(store.uri):
        return artifacts.fetch(store.client(), store.uri, run_id, path)


def studies(store: Store) -> list[str]:
    """The names of the studies in the store."""
    with _store_errors(store.uri):
        found: list[Experiment] = list(store.client().search_experiments())
    return sorted(e.name for e in found if e.name != "Default")


def load_study(store: Store, name: str) -> StudyRecord:
    """Everything the analysis needs to know of a study.

    A run whose arm and seed the current plan gives another key is SUPERSEDED: it was trained with
    a configuration that has been edited since.

    Raises:
        UsageError: no such study; the message names those that exist.
    """
    path = store.sqlite_file
    if path is not None and not path.exists():
        raise UsageError(f"{path}: no MLflow store here; run a study first, or go to where it was run")
    client = store.client()
    with _store_errors(store.uri):
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(studies(store)) or "none"
        raise UsageError(f"study={name}: no such study in {store.uri}; there are: {known}")
    with _store_errors(store.uri):
        plan = _plan(client, store, experiment.experiment_id, name)
        wanted = {(run.arm, run.seed): run.key for run in plan.runs}
        found = list(_all_runs(client, experiment.experiment_id))
        artifacts.remember(store.uri, found)
        points = _points(store, client, experiment.experiment_id, found)
        runs = [
            store_read.record(
                run.info.run_id, run.data.tags, run.data.params, run.data.metrics,
                points.get(run.info.run_id, {}), wanted,
            )
            for run in found
        ]  # fmt: skip
    return StudyRecord(name, runs, list(plan.runs), plan.description, tuple(plan.declared))


def _plan(client: MlflowClient, store: Store, experiment: str, name: str) -> Plan:
    parent = parent_of(store, experiment, name, create=False)
    if parent is None or not any(file.path == "plan.json" for file in client.list_artifacts(parent)):
        return Plan()
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(parent, "plan.json", folder)
        return store_read.read_plan(Path(path))


def _all_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], "tags.kind = 'run'", ViewType.ACTIVE_ONLY, 1000, ["start_time ASC"], token
        )
        yield from page
        token = page.token
        if not token:
            return


def _points(store: Store, client: MlflowClient, experiment: str, runs: list[Run]) -> store_read.Points:
    """Every run's history: in bulk where the store can be asked so, else run by run."""
    try:
        if store.sqlite_file is not None:
            return store_read.sqlite_points(store.sqlite_file, experiment)
        if store.uri.startswith(("http://", "https://")):
            return store_read.server_points(partial(_bulk, client), [run.info.run_id for run in runs])
    except (LookupError, sqlite3.Error, MlflowException, AttributeError, ValueError) as error:
        log.info("%s: reading run by run, which is slow: %s", store.uri, one_line(error, 200))
    return store_read.points_one_by_one(client, runs)


def _bulk(client: MlflowClient, query: list[tuple[str, str]]) -> Any:
    """The endpoint that MLflow's own pages read; its Python client does not offer it."""
    creds = client._tracking_client.store.get_host_creds()
    answer = http_request(creds, "/ajax-api/2.0/mlflow/metrics/get-history-bulk", "GET", params=query)  # type: ignore[no-untyped-call]
    if answer.status_code != 200:
        raise LookupError(f"the server's bulk endpoint answers {answer.status_code}")
    return answer.json()


def find_folders(store: Store, prefix: str) -> list[str]:
    """The folders of the runs whose key or MLflow run id begins with `prefix`."""
    if store.sqlite_file is not None and not store.sqlite_file.exists():
        return []
    client = store.client()
    with _store_errors(store.uri):
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = [run for e in experiments for run in _all_runs(client, e)]
    return [
        run.data.tags["folder"]
        for run in runs
        if run.info.run_id.startswith(prefix) or run.data.tags["key"].startswith(prefix)
    ]
