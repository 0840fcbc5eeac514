"""Imported runs enter a study together or not at all: their folders, the plan, and MLflow.

Folders are written to a hidden place below `out` and renamed when all are whole. Whatever fails after
that, a store that goes away included, is undone in reverse. A process that is killed in between leaves
runs that the same import completes.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablation.commands.imports.table import Row
from ablation.errors import AblationError, StoreError
from ablation.files import canonical_json, sha256_text, write_atomic, write_text
from ablation.records import PlannedRun, StudyData
from ablation.study.plan_file import extend_plan, plan_file
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES, RunFolder
from ablation.tracking.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportedRun:
    """One run of the table with everything that its folder holds.

    Attributes:
        identity: content of run.json.
        truth: COCO's ground truth; empty where there is none.
    """

    row: Row
    identity: dict[str, Any]
    truth: dict[str, Any]

    @classmethod
    def of(cls, row: Row, facts: dict[str, Any], truth: dict[str, Any]) -> ImportedRun:
        """From a line of the table and what run.json says of every run of it."""
        params = row.params | {"source": "import"}
        content = [row.arm, row.seed, row.state, row.reason, row.epoch, params, row.metrics, row.results]
        content += [row.epochs] if row.epochs else []
        key = sha256_text(canonical_json([*content, facts["fingerprint"]]))
        identity = facts | {"arm": row.arm, "seed": row.seed, "key": key, "params": params}
        return cls(row, identity, truth)

    def folder(self, out: Path) -> RunFolder:
        """Where it is, or will be, below `out`."""
        key = self.identity["key"]
        return RunFolder.of(out, self.identity["study"], self.row.arm, self.row.seed, key)

    @property
    def planned(self) -> PlannedRun:
        """As an entry of the study's plan."""
        row, identity = self.row, self.identity
        return PlannedRun(row.arm, row.seed, identity["key"], identity["command"], identity["params"])


def enter_runs(
    study: str,
    runs: Sequence[ImportedRun],
    out: Path,
    store: Store,
    facts: dict[str, Any],
    data: StudyData,
) -> list[RunFolder]:
    """Write the runs that are not there yet, extend the plan, and copy everything into MLflow.

    Args:
        facts: what run.json says of every run of the table.

    Raises:
        AblationError: something failed; study and store are as before.
    """
    folders = [run.folder(out) for run in runs]
    new = [run for run, folder in zip(runs, folders, strict=True) if folder.state not in _WHOLE]
    with ExitStack() as undo:
        store.prepare()
        _create_experiment(study, store, facts["description"], undo)
        _write_folders(new, out, plan_file(out, study).parent, undo)
        keys = {run.identity["key"] for run in runs}
        undo.callback(_delete_runs, study, store, keys, existing=_run_ids(study, store))
        for folder in folders:
            Mirror(store, folder, strict=True).finish(folder.artifacts())
        _restore_on_failure(plan_file(out, study), undo)
        plan, _ = extend_plan(out, study, [run.planned for run in runs], None, data, replace_data=True)
        publish_plan(store, study, replace(plan, description=facts["description"]))
        undo.pop_all()
    return folders


_WHOLE = (*DONE_STATES, "FAILED", "KILLED")
"""States of imported runs; a folder with another one is not complete."""


def _write_folders(runs: Sequence[ImportedRun], out: Path, study_folder: Path, undo: ExitStack) -> None:
    """All of them in a hidden folder first, then each renamed into place."""
    out.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".import-", dir=out))
    try:
        for run in runs:
            _write(run.folder(staged), run)
        if not study_folder.exists():
            undo.callback(shutil.rmtree, study_folder, ignore_errors=True)
        for run in runs:
            target = run.folder(out).path
            shutil.rmtree(target, ignore_errors=True)  # a part that an import left which was killed
            target.parent.mkdir(parents=True, exist_ok=True)
            undo.callback(_remove_folder, target)
            run.folder(staged).path.rename(target)
    except OSError as error:
        raise AblationError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write(folder: RunFolder, run: ImportedRun) -> None:
    row = run.row
    folder.write_json("run.json", run.identity)
    write_text(folder.file("config.yaml"), f"# imported: {run.identity['command']}\n")
    folder.set_state("RUNNING")
    if row.detections is not None:
        folder.write_json("detections/ground_truth.json", run.truth)
        folder.write_json("detections/val.json", row.results)
    time_ms = folder.read_json("state.json")["started_ms"]
    epochs = row.epochs or (((row.epoch, row.metrics),) if row.metrics else ())
    lines = [{"epoch": epoch, "time_ms": time_ms, "metrics": metrics} for epoch, metrics in epochs]
    write_text(folder.file("metrics.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
    folder.set_state(row.state, row.reason)


# undoing


def _remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # the arm may have other runs
        path.parent.rmdir()


def _restore_on_failure(path: Path, undo: ExitStack) -> None:
    """The plan as it is now, or none, if what follows fails."""
    if path.exists():
        content = path.read_bytes()
        undo.callback(write_atomic, path, lambda file: file.write(content))
    else:
        undo.callback(path.unlink, missing_ok=True)


def _create_experiment(study: str, store: Store, description: str, undo: ExitStack) -> None:
    """The study's experiment; a new one is taken away again, and its name stays free."""
    with store.errors():
        existed = store.client().get_experiment_by_name(study) is not None
    experiment = store.experiment(study, description)
    if not existed:
        undo.callback(_delete_experiment, store, experiment, study)


def _delete_experiment(store: Store, experiment: str, study: str) -> None:
    with _failure_as_warning(store):
        client = store.client()
        client.rename_experiment(experiment, f"{study} (import {uuid.uuid4().hex[:8]} failed)")
        client.delete_experiment(experiment)


def _run_ids(study: str, store: Store) -> set[str]:
    with store.errors():
        return {run.info.run_id for run in store.runs(store.experiment(study))}


def _delete_runs(study: str, store: Store, keys: set[str], existing: set[str]) -> None:
    with _failure_as_warning(store):
        for run in list(store.runs(store.experiment(study))):
            if run.data.tags["key"] in keys and run.info.run_id not in existing:
                store.client().delete_run(run.info.run_id)


@contextmanager
def _failure_as_warning(store: Store) -> Iterator[None]:
    """A store that is gone cannot be cleaned up."""
    try:
        with store.errors():
            yield
    except StoreError:
        log.warning("MLflow (%s) may hold a part of the runs; importing again completes them", store.uri)
