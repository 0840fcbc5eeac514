"""The MLflow store and the runs in it: the only file that imports mlflow.

A run's folder is the truth; mirror.py says what is copied from it and when, this file writes it into
MLflow. Writing is idempotent (a point is identified by metric, epoch, time and value), so the same
code serves live logging, one batch an epoch, and a later replay of what a lost server missed.
What belongs to a whole study is written by experiment.py and read by study_record.py.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before mlflow is imported: it reads these once.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
# MLflow's own 7 retries and 120 s hold a command for minutes where the server is gone.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from ablation.errors import StoreError, UsageError, one_line, without_userinfo
from ablation.files import locked_folder, metric_name, write_text
from ablation.imports import large_import
from ablation.tracking import address
from ablation.tracking.credentials import with_credentials
from ablation.tracking.moved_store import follow_moved_artifacts
from ablation.tracking.run_places import current_artifacts, portable
from ablation.tracking.study_folder import study_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Run

# It announces every table that it creates; a new store is not worth a line.
# Of an error it prints a traceback, and then raises it: it becomes a line of ours.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
# It warns of every retry; the failure itself is our own line.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

_DAMAGED = ("malformed", "not a database", "no such table", "no such column", "disk image")
"""What SQLite says of a file that is broken, and not only locked or out of reach."""

PARENT = "study"
"""Value of the tag `kind` of the run that stands for a whole study."""
DISPLAY_NAME = "metric."
"""The tag metric.<name that MLflow takes> holds a metric's own name, where that is another one."""
_TAGS_IN_A_BATCH = 100


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps things.

    Attributes:
        uri: tracking URI, absolute, without user and password.
        artifacts: root for the artifacts of new experiments; None leaves it to a server.
    """

    uri: str
    artifacts: str | None

    @classmethod
    def of(cls, uri: str | None, artifacts: str | None) -> Store:
        """Defaults: mlflow.db and mlartifacts/ in the working folder, where `mlflow ui` finds them."""
        return cls(*address.resolve(uri, artifacts))

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, where it is one."""
        return address.sqlite_file(self.uri)

    @property
    def private_uri(self) -> str:
        """The URI with a database's user and password. Not to be stored, printed or put on a command line."""
        from mlflow.utils.credentials import read_mlflow_creds

        return with_credentials(self.uri, *read_mlflow_creds())

    @property
    def base(self) -> Path | None:
        """The folder of the SQLite file, which paths in the store are relative to."""
        return None if self.sqlite_file is None else self.sqlite_file.parent

    def client(self) -> MlflowClient:
        """The client of a store that exists; see `prepare`."""
        return _client(self.private_uri)

    def prepare(self) -> None:
        """Create a new SQLite store whole: in a temporary file, then linked into place.

        Several processes that open a new store at once would each try to create its tables.

        Raises:
            StoreError: the file is no MLflow database.
        """
        with large_import():  # now, in the main thread: a server is written by a thread of its own
            import mlflow
        path = self.sqlite_file
        if path is None:
            return
        with large_import():  # as MLflow itself would, at the first question to a database
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        path.parent.mkdir(parents=True, exist_ok=True)
        half_made = f".{path.name}.new-*"
        if not _is_there(path) or any(path.parent.glob(half_made)):
            with locked_folder(path.parent):
                for former in path.parent.glob(half_made):  # of a process that was killed: the lock is ours
                    shutil.rmtree(former, ignore_errors=True)
                if not _is_there(path):
                    self._create(path)
        self._check(path)
        with self.errors():
            follow_moved_artifacts(path)

    def _create(self, path: Path) -> None:
        from mlflow import MlflowClient

        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.new-") as folder:
            new = Path(folder) / path.name
            with _errors_named(str(path)):
                client = MlflowClient(f"sqlite:///{new}")
                client.search_experiments(max_results=1)
                _dispose(client)
            if path.exists() and not _is_there(path):
                path.unlink(missing_ok=True)  # empty: what an interrupted creation elsewhere left behind
            with suppress(FileExistsError):  # on a file system without locks another process may be faster
                path.hardlink_to(new)

    # a study in the store

    def experiment(self, study: str, description: str = "") -> str:
        """The id of the study's experiment, created where it does not exist.

        Raises:
            StoreError: it was deleted in MLflow.
        """
        from mlflow.exceptions import MlflowException

        client = self.client()
        with self.errors():
            if self.sqlite_file is not None:
                follow_moved_artifacts(self.sqlite_file)
            experiment = client.get_experiment_by_name(study)
            if experiment is None:
                location = f"{self.artifacts}/{study_name(study)}" if self.artifacts else None
                # Without its kind the UI opens an experiment on the pages for language models.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                tags |= {"mlflow.note.content": description} if description else {}
                try:
                    return str(client.create_experiment(study, artifact_location=location, tags=tags))
                except MlflowException:
                    experiment = client.get_experiment_by_name(study)  # another process was faster
                    if experiment is None:
                        raise
        if experiment.lifecycle_stage != "active":
            raise StoreError(
                f"MLflow experiment {study!r} was deleted in {self.uri}: restore it, or rename the study"
            )
        return str(experiment.experiment_id)

    def parent_run(self, experiment: str, study: str, create: bool = True) -> str | None:
        """The id of the run that holds the study's plan and report; None where it is not to be created."""
        client = self.client()
        oldest = ["start_time ASC", "run_id ASC"]
        runs = client.search_runs([experiment], f"tags.kind = '{PARENT}'", max_results=1, order_by=oldest)
        if runs:
            return str(runs[0].info.run_id)
        if not create:
            return None
        tags = {"kind": PARENT, "study": study}
        run = client.create_run(experiment, run_name=f"study {study}", tags=tags)
        client.set_terminated(run.info.run_id, "FINISHED")
        # Another process may have made one at the same moment: both take the first.
        return self.parent_run(experiment, study, create=False)

    def runs(self, experiment: str) -> Iterator[Run]:
        """The trainings of an experiment, oldest first."""
        token = None
        while True:
            page = self.client().search_runs(
                [experiment],
                "tags.kind = 'run'",
                max_results=1000,
                order_by=["start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def histories_in_bulk(self, query: list[tuple[str, str]]) -> Any:
        """A server's answer from the endpoint that MLflow's own pages read; its client does not offer it.

        Raises:
            LookupError: the server has no such endpoint.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request

        path = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
        try:
            credentials = self.client()._tracking_client.store.get_host_creds()
            answer = http_request(credentials, path, "GET", params=query)  # type: ignore[no-untyped-call]
        except (AttributeError, MlflowException) as error:
            raise LookupError(one_line(error, 200)) from None
        if answer.status_code != 200:
            raise LookupError(f"the server's bulk endpoint answers {answer.status_code}")
        return answer.json()

    # what a Mirror needs; see mirror.TrackingStore

    @property
    def local(self) -> bool:
        """Whether the store is a file of this machine."""
        return self.sqlite_file is not None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns any failure of the store into a StoreError of one line that names it."""
        with _errors_named(self.uri):
            yield

    def open_run(self, identity: dict[str, Any], folder: Path, started_ms: int, tags: dict[str, str]) -> str:
        """The id of the run of a folder, which is created where there is none.

        Args:
            identity: content of run.json.
        """
        client = self.client()
        experiment = self.experiment(identity["study"], identity.get("description", ""))
        runs = self._runs_of(experiment, identity["key"], folder, started_ms)
        if not runs:
            tags = self._portable(tags)
            tags |= {"mlflow.parentRunId": str(self.parent_run(experiment, identity["study"]))}
            client.create_run(experiment, started_ms, tags, f"{identity['arm']} seed{identity['seed']}")
            runs = self._runs_of(experiment, identity["key"], folder, started_ms)
        run = runs[0]
        missing = {key: value for key, value in identity["params"].items() if key not in run.data.params}
        if missing:  # they are written last, some at a time: a creation that broke off is completed
            self._describe(run.info.run_id, identity | {"params": missing}, folder)
        return str(run.info.run_id)

    def _describe(self, run: str, identity: dict[str, Any], folder: Path) -> None:
        """A run's data set, configuration and parameters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        client, data = self.client(), identity["data"]
        source, profile = json.dumps(data), json.dumps(identity["data_profile"])
        dataset = Dataset(data["name"], identity["fingerprint"][:32], "local", source, profile=profile)
        client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
        with suppress(FileNotFoundError):
            # Version 0.1.0 wrote the password of a store's address into it.
            text = without_userinfo((folder / "config.yaml").read_text(encoding="utf-8"))
            self.log_text(run, "config.yaml", text)
        params = [Param(key, value[:6000]) for key, value in identity["params"].items()]
        for start in range(0, len(params), 100):  # what MLflow takes in one request
            client.log_batch(run, params=params[start : start + 100])

    def _runs_of(self, experiment: str, key: str, folder: Path, started_ms: int) -> list[Run]:
        """The folder's run first: the one that started at the same moment, wherever the folder was then.

        More than one: a request was given up but done all the same, or an earlier version took a moved
        folder for another run. The others are deleted, which MLflow can undo.
        """
        client = self.client()
        # By key, then by folder: a folder's name may hold what a filter string cannot quote.
        same_key = client.search_runs([experiment], f"tags.key = '{key}'")
        names = {str(folder), portable(str(folder), self.base)}
        runs = [
            run
            for run in same_key
            if run.data.tags.get("folder") in names or run.info.start_time == started_ms
        ]
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        for extra in runs[1:]:
            if not extra.data.metrics or extra.info.start_time == started_ms:
                client.delete_run(extra.info.run_id)
        return runs

    def _portable(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags with the folder relative to the store's, and without passwords that version 0.1.0 wrote."""
        tags = {name: without_userinfo(value) for name, value in tags.items()}
        return tags | {"folder": portable(tags["folder"], self.base)}

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
        from mlflow.entities import Metric, RunTag

        at = (line["time_ms"], line["epoch"])
        stored = {name: metric_name(name) for name in line["metrics"]}
        metrics = [Metric(stored[name], value, *at) for name, value in line["metrics"].items()]
        # So that the class of the data is still known by its own name when the study is read.
        tags = [RunTag(DISPLAY_NAME + short, name) for name, short in stored.items() if short != name]
        self.client().log_batch(run, metrics=metrics, tags=tags[:_TAGS_IN_A_BATCH])
        for start in range(_TAGS_IN_A_BATCH, len(tags), _TAGS_IN_A_BATCH):
            self.client().log_batch(run, tags=tags[start : start + _TAGS_IN_A_BATCH])

    def log_file(self, run: str, path: Path, folder: str | None) -> None:
        """Attach a file to a run."""
        client = self.client()
        place = current_artifacts(client.get_run(run).info.artifact_uri, self.base)
        if place is None:
            client.log_artifact(run, str(path), folder)
        else:  # not by MLflow, which would create the folder where it was before the project was moved
            target = place / (folder or "") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def log_text(self, run: str, name: str, text: str) -> None:
        """Attach a text to a run, as a file of that name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            write_text(path, text)
            self.log_file(run, path, None)

    def end_run(self, run: str, tags: dict[str, str], status: str, ended_ms: int | None) -> None:
        """The final tags and the final status of a run."""
        from mlflow.entities import RunTag

        client = self.client()
        client.log_batch(run, tags=[RunTag(key, value) for key, value in self._portable(tags).items()])
        if ended_ms is not None:  # the clock may have been set back since it started
            ended_ms = max(ended_ms, int(client.get_run(run).info.start_time or 0))
        client.set_terminated(run, status, ended_ms)

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise StoreError(
                    f"{path}: not an SQLite database; move it away (`ablation sync` makes a store from the "
                    "runs), or name another tracking.uri"
                )
        with _errors_named(str(path)):
            self.client().search_experiments(max_results=1)


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@cache
def _client(uri: str) -> MlflowClient:
    """One client for many questions; what it keeps open to a database, MLflow keeps once for each uri."""
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _dispose(client: MlflowClient) -> None:
    """Close the connections to a temporary store, so that nothing is written to it afterwards."""
    engine = getattr(client._tracking_client.store, "engine", None)
    if engine is not None:
        engine.dispose()


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Any failure of the store as one line that names it."""
    try:
        yield
    except (StoreError, UsageError):
        raise
    except Exception as error:
        text = one_line(error, 300)
        if any(sign in text for sign in _DAMAGED):
            text += "; the file is damaged: move it away, then `ablation sync` makes it again from the runs"
        raise StoreError(f"{name}: MLflow cannot use this store: {text}") from error
