"""Damaged MLflow stores: bytes of the database, and values in its tables."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from helpers.fuzz import Reader, Result
from helpers.mutations import ODD_VALUES, Damage
from helpers.shared import put_store
from helpers.store import run_folder, store_in

from ablation.records import Plan, PlannedRun
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.study_record import find_folders, load_study

Fuzz = Callable[[Reader, int], Result]

COLUMNS = {
    "metrics": ("key", "value", "timestamp", "run_uuid", "step", "is_nan"),
    "latest_metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "tags": ("key", "value", "run_uuid"),
    "runs": (
        "run_uuid",
        "status",
        "start_time",
        "end_time",
        "artifact_uri",
        "experiment_id",
        "lifecycle_stage",
    ),
    "experiments": ("experiment_id", "name", "artifact_location", "lifecycle_stage"),
}


def write(folder: Path) -> None:
    store = put_store(folder)
    keys = ["a" * 64, "b" * 64]
    for seed, key in enumerate(keys):
        run = run_folder(folder, seed=seed, key=key)
        for epoch in (1, 2, 3):
            run.append_metrics(epoch, {"val/AP": 0.1 * epoch, "train/loss": math.nan if epoch == 1 else 2.5})
        run.set_state("FINISHED")
        Mirror(store, run, strict=True).finish([])
    planned = [PlannedRun("bce", seed, key, "c") for seed, key in enumerate(keys)]
    publish_plan(store, "s", Plan(planned, description="why"))


def damage(folder: Path, damage: Damage) -> None:
    path = folder / "mlflow.db"
    if damage.random.random() < 0.4:
        damage.binary_file(path)
        return
    table = damage.choose(sorted(COLUMNS))
    column = damage.choose(COLUMNS[table])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA foreign_keys = OFF")
        rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]
        row, what = (
            damage.choose(rows),
            damage.choose(("odd", "odd", "odd", "blob", "delete", "column", "table")),
        )
        try:
            if what == "delete":
                database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
            elif what == "column":
                database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO renamed")
            elif what == "table":
                database.execute(f"ALTER TABLE {table} RENAME TO renamed")
            else:
                odd: Any = damage.random.randbytes(9) if what == "blob" else damage.choose(ODD_VALUES)
                odd = odd if isinstance(odd, str | bytes | float | None) else str(odd)[:200]
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (odd, row))
        except (sqlite3.Error, OverflowError):
            database.execute("DELETE FROM tags WHERE key = 'arm'")  # SQLite itself refused that damage


def read(folder: Path) -> Any:
    store = store_in(folder)
    store.prepare()
    return load_study(store, "s"), find_folders(store, "")


def wrong(folder: Path, value: Any, undamaged: Any) -> str | None:
    """Runs, parameters, metrics and histories by plain SQL on the same tables."""
    study, _ = value
    with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            return _differs(study, database)
        except sqlite3.Error as error:
            return f"SQLite cannot read what was read: {error}"


def _differs(study: Any, database: sqlite3.Connection) -> str | None:
    rows = database.execute(
        "SELECT r.run_uuid FROM runs r JOIN experiments e USING (experiment_id) "
        "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'kind' AND t.value = 'run' "
        "WHERE e.name = 's' AND r.lifecycle_stage = 'active'"
    )
    ids = sorted(str(row[0]) for row in rows)
    if sorted(run.run_id for run in study.runs) != ids:
        return f"runs {[run.run_id for run in study.runs]}, the tables say {ids}"
    for run in study.runs:
        tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run.run_id,)))
        if (run.arm, str(run.seed), run.key) != (tags.get("arm"), tags.get("seed"), tags.get("key")):
            return f"{(run.arm, run.seed, run.key)} of {tags}"
        if run.state not in ("SUPERSEDED", tags.get("state", "RUNNING")):
            return f"{run.state} of {tags}"
        params = dict(database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run.run_id,)))
        if run.params != params:
            return f"parameters {run.params} of {params}"
        latest = database.execute(
            "SELECT key, value, is_nan, typeof(value) FROM latest_metrics WHERE run_uuid = ?", (run.run_id,)
        ).fetchall()
        for name, number, is_nan, kind in latest:
            metric = run.metrics.get(name)
            if not is_nan and kind not in ("real", "integer"):
                return f"{name} is {kind} {number!r:.100} and was read as {metric!r}"
            if not isinstance(metric, float) or (not is_nan and metric != number):
                return f"{name} is {number!r:.100} and was read as {metric!r}"
        if len(run.metrics) != len(latest):
            return f"{len(run.metrics)} metrics of {len(latest)}"
        points = database.execute(
            "SELECT step, value, is_nan, typeof(value), typeof(step) FROM metrics "
            "WHERE run_uuid = ? AND key = 'val/AP' ORDER BY timestamp, step, value",
            (run.run_id,),
        ).fetchall()
        history = run.history.query("metric == 'val/AP'")
        pairs = list(zip(history["epoch"], history["value"], strict=True))
        if len(pairs) != len(points):
            return f"{len(pairs)} points of {len(points)}"
        for (epoch, number), (step, stored, is_nan, kind, step_kind) in zip(pairs, points, strict=True):
            if step_kind != "integer" or (not is_nan and kind not in ("real", "integer")):
                return f"point {step!r:.50} {stored!r:.50} was read as {epoch} {number}"
            if epoch != step or not (math.isnan(number) if is_nan else number == stored):
                return f"point {step} {stored} was read as {epoch} {number}"
    return None


def update(command: str) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            database.execute("PRAGMA ignore_check_constraints = ON")
            database.execute(command)

    return special


def another_database(folder: Path) -> None:
    (folder / "mlflow.db").unlink()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE a (b)")


SPECIAL = {
    "text in metrics": update("UPDATE metrics SET value = 'abc' WHERE step = 2"),
    "text in latest metrics": update("UPDATE latest_metrics SET value = 'abc'"),
    "numbers as text": update("UPDATE latest_metrics SET value = '0.3x'"),
    "text in steps": update("UPDATE metrics SET step = 'two' WHERE step = 2"),
    "no seed": update("DELETE FROM tags WHERE key = 'seed'"),
    "seed of a word": update("UPDATE tags SET value = 'one' WHERE key = 'seed'"),
    "unknown state": update("UPDATE tags SET value = 'DONE?' WHERE key = 'state'"),
    "status of nothing": update("UPDATE runs SET status = 'ASLEEP'"),
    "empty": lambda folder: os.truncate(folder / "mlflow.db", 0),
    "another database": another_database,
    "half": lambda folder: os.truncate(folder / "mlflow.db", 90_000),
}
STORE = Reader("MLflow store", write, damage, read, wrong, SPECIAL, kept=(3, 275))


def test_stores(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(STORE, mutations).failures == []
