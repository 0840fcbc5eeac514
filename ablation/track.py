"""The ledger: the only file that imports mlflow.

A run's folder is the truth; this file copies it into MLflow and reads studies back. Copying is
idempotent (a point is identified by metric, epoch, time and value), so the same code serves live
logging, one batch an epoch, and a later replay of what a lost server missed.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before mlflow is imported: it reads these once.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException

from ablation.errors import StoreError, UsageError, one_line
from ablation.files import safe_name
from ablation.records import Declaration, PlannedRun, RunRecord, StudyRecord
from ablation.run_folder import RunFolder

log = logging.getLogger(__name__)
# It announces every table that it creates; a new store is not worth a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

PARENT = "study"
"""Value of the tag `kind` of the run that stands for a whole study."""

_STATUS = {"RUNNING": "RUNNING", "FINISHED": "FINISHED", "KILLED": "KILLED", "STOPPED": "KILLED",
           "PRUNED": "KILLED"}  # fmt: skip
_HISTORY = ("val/AP", "val/AP50", "val/AP75", "train/loss")


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
        if uri is None:
            uri = f"sqlite:///{Path('mlflow.db').resolve()}"
        elif uri.startswith("sqlite:///"):
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
        elif "://" not in uri or uri.startswith("file:"):
            raise UsageError(
                f"tracking.uri: found {uri}; MLflow 3 keeps no runs in plain folders: "
                "give sqlite:///FILE or http://HOST:PORT, or null for sqlite in mlflow.db"
            )
        if artifacts is None and uri.startswith("sqlite:///"):
            artifacts = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        elif artifacts is not None and "://" not in artifacts:
            artifacts = Path(artifacts).resolve().as_uri()
        return cls(uri, artifacts)

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, where it is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    def client(self) -> MlflowClient:
        """A client of a store that exists; see `prepare`."""
        return MlflowClient(self.uri)

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

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise StoreError(
                    f"{path}: not an SQLite database; move it away, or name another tracking.uri"
                )
        with _store_errors(str(path)):
            self.client().search_experiments(max_results=1)


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
        [experiment], f"tags.kind = '{PARENT}'", max_results=1, order_by=["start_time ASC"]
    )
    if found:
        return str(found[0].info.run_id)
    if not create:
        return None
    run = client.create_run(experiment, run_name=f"study {study}", tags={"kind": PARENT, "study": study})
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


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
        rows = [vars(run) for run in planned]
        plan = {"description": description, "runs": rows, "declared": [vars(d) for d in declared]}
        store.client().log_dict(parent, plan, "plan.json")


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


class Mirror:
    """Copies one run's folder into MLflow. A lost server is a warning and must not stop a training.

    Args:
        store: None: do nothing.
        folder: the run's.
        strict: raise StoreError instead of warning (for a replay, whose only task this is).
    """

    def __init__(self, store: Store | None, folder: RunFolder, strict: bool = False) -> None:
        self.store = store
        self.folder = folder
        self.strict = strict
        self._pushed = 0
        self._run: str | None = None

    def start(self) -> None:
        """Create the MLflow run, or find the one that this folder already has."""
        self._guard(lambda store: self._open(store, running=True))

    def push(self) -> None:
        """Log every epoch that has not been logged, one batch each."""
        self._guard(self._push)

    def finish(self, artifacts: list[Path]) -> None:
        """Log what is missing, the artifacts, and the final state."""

        def content(store: Store) -> None:
            self._push(store)
            for path in artifacts:
                folder = path.parent.name if path.parent != self.folder.path else None
                store.client().log_artifact(self._open(store, running=False), str(path), folder)

        def state(store: Store) -> None:
            run, client = self._open(store, running=False), store.client()
            for key, value in self._tags().items():
                client.set_tag(run, key, value)
            ended = self.folder.read_json("state.json").get("ended_ms")
            client.set_terminated(run, _STATUS.get(self.folder.state, "FAILED"), ended)

        # Apart, so that a file which cannot be read does not leave the run RUNNING for ever.
        self._guard(content)
        self._guard(state)

    def _guard(self, work: Any) -> None:
        if self.store is None:
            return
        if self.strict:
            with _store_errors(self.store.uri):
                work(self.store)
            return
        try:
            work(self.store)
        except Exception as error:
            log.warning("MLflow (%s) not reached: %s; the run goes on, its folder has everything",
                        self.store.uri, one_line(error, 200))  # fmt: skip

    def _open(self, store: Store, running: bool) -> str:
        if self._run is not None:
            return self._run
        about = self.folder.read_json("run.json")
        client = store.client()
        experiment = experiment_of(store, about["study"], about.get("description", ""))
        # By key, then by folder: a folder's name may hold what a filter string cannot quote.
        folder = str(self.folder.path.resolve())
        same_key = client.search_runs([experiment], f"tags.key = '{about['key']}'")
        found = [run for run in same_key if run.data.tags.get("folder") == folder]
        if found:
            self._run = str(found[0].info.run_id)
            if running:
                client.update_run(self._run, status="RUNNING")
                client.set_tag(self._run, "state", "RUNNING")
            return self._run
        started = self.folder.read_json("state.json").get("started_ms") or round(time.time() * 1000)
        parent = parent_of(store, experiment, about["study"])
        tags = self._tags() | {"mlflow.parentRunId": str(parent)}
        run = client.create_run(experiment, started, tags, f"{about['arm']} seed{about['seed']}")
        self._run = str(run.info.run_id)
        params = [Param(key, value[:6000]) for key, value in about["params"].items()]
        client.log_batch(self._run, params=params)
        digest = about["fingerprint"][:32]
        source = json.dumps(about["data"])
        dataset = Dataset(
            about["data"]["name"], digest, "local", source, profile=json.dumps(about["data_profile"])
        )
        client.log_inputs(self._run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
        client.log_artifact(self._run, str(self.folder.file("config.yaml")))
        return self._run

    def _push(self, store: Store) -> None:
        run = self._open(store, running=False)
        client = store.client()
        for line in self.folder.settled_metrics()[self._pushed :]:
            metrics = [Metric(k, v, line["time_ms"], line["epoch"]) for k, v in line["metrics"].items()]
            client.log_batch(run, metrics=metrics)
            self._pushed += 1

    def _tags(self) -> dict[str, str]:
        about = self.folder.read_json("run.json")
        tags = {key: str(about[key]) for key in ("study", "arm", "seed", "key")}
        tags |= {"kind": "run", "state": self.folder.state, "reason": self.folder.reason[:500]}
        tags |= {"folder": str(self.folder.path.resolve()), "command": about["command"]}
        tags |= {f"code.{key}": str(value) for key, value in about["code"].items()}
        if "git_commit" in about["code"]:
            tags["mlflow.source.git.commit"] = about["code"]["git_commit"]
        tags |= {"mlflow.source.name": "ablation train", "mlflow.source.type": "LOCAL"}
        for name, value in self.folder.read_json("notes.json").items():
            if isinstance(value, dict):
                tags |= {f"{name}.{key}": str(item) for key, item in value.items()}
            else:
                tags[name] = str(value)
        return tags


# reading


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
        raise UsageError(
            f"{path}: no MLflow store here; run a study first, or go to the folder it was run in"
        )
    client = store.client()
    with _store_errors(store.uri):
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(studies(store)) or "none"
        raise UsageError(f"study={name}: no such study in {store.uri}; there are: {known}")
    with _store_errors(store.uri):
        planned, description, declared = _plan(client, store, experiment.experiment_id, name)
        wanted = {(run.arm, run.seed): run.key for run in planned}
        runs = [_record(client, run, wanted) for run in _all_runs(client, experiment.experiment_id)]
    return StudyRecord(name=name, runs=runs, planned=planned, description=description, declared=declared)


def _plan(
    client: MlflowClient, store: Store, experiment: str, name: str
) -> tuple[list[PlannedRun], str, tuple[Declaration, ...]]:
    parent = parent_of(store, experiment, name, create=False)
    if parent is None or not any(file.path == "plan.json" for file in client.list_artifacts(parent)):
        return [], "", ()
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(parent, "plan.json", folder)
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    declared = tuple(Declaration.read(row) for row in plan.get("declared", []))
    return [PlannedRun(**row) for row in plan["runs"]], plan["description"], declared


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


def _record(client: MlflowClient, run: Run, wanted: dict[tuple[str, int], str]) -> RunRecord:
    tags = run.data.tags
    arm, seed, key = tags["arm"], int(tags["seed"]), tags["key"]
    superseded = wanted.get((arm, seed), key) != key
    state = "SUPERSEDED" if superseded else tags.get("state", "RUNNING")
    rows: list[tuple[int, str, float]] = []
    for metric in _HISTORY:
        if metric in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, metric)
            rows += [(point.step, metric, point.value) for point in points]
    return RunRecord(
        run_id=run.info.run_id,
        study=tags["study"],
        arm=arm,
        seed=seed,
        key=key,
        state=state,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        history=pd.DataFrame(rows, columns=["epoch", "metric", "value"]),
        folder=tags.get("folder", ""),
        reason="trained with a configuration that was edited since" if superseded else tags.get("reason", ""),
    )


def find_folders(store: Store, prefix: str) -> list[str]:
    """The folders of the runs whose key or MLflow run id begins with `prefix`."""
    path = store.sqlite_file
    if path is not None and not path.exists():
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
