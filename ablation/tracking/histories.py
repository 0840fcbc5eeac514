"""The histories of many runs at once, without mlflow: in bulk where the store allows it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

HISTORY = ("val/AP", "val/AP50", "val/AP75", "train/loss")
"""The metrics whose value at every epoch the analysis looks at."""

Points = dict[str, dict[str, list[tuple[int, float]]]]
"""run id -> metric -> (epoch, value) of every logged point, by time, then epoch, then value."""

SERVER_RUNS = 100
"""How many runs one request of MLflow's bulk endpoint may name."""
SERVER_POINTS = 25_000
"""How many points it returns at most; it does not say that it left some out."""

METRIC_COLUMNS = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}
"""Those of MLflow's table `metrics` that are read here."""


def sqlite_points(path: Path, experiment: str, metrics: Sequence[str] = HISTORY) -> Points:
    """The histories of all runs of an experiment from MLflow's own SQLite tables, in one query.

    The database is opened read-only. Through MLflow each run and metric is a query of its own,
    which makes minutes of a thousand runs.

    Raises:
        LookupError: the tables are not those that MLflow 3 had when this was written.
        TypeError: a value is no number.
        sqlite3.Error: the database cannot be read.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
        for table, needed in {"metrics": METRIC_COLUMNS, "runs": {"run_uuid", "experiment_id"}}.items():
            columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            if not needed <= columns:
                missing = ", ".join(sorted(needed - columns))
                raise LookupError(f"table {table} has no {missing}")
        marks = ", ".join("?" * len(metrics))
        rows = database.execute(
            "SELECT m.run_uuid, m.key, m.step, m.value, m.is_nan FROM metrics m "
            "JOIN runs r ON r.run_uuid = m.run_uuid "
            f"WHERE r.experiment_id = ? AND m.key IN ({marks}) ORDER BY m.timestamp, m.step, m.value",
            (int(experiment), *metrics),
        )
        points: Points = {}
        for run, metric, step, value, is_nan in rows:
            number = math.nan if is_nan else number_in_store(metric, value)
            points.setdefault(run, {}).setdefault(metric, []).append((int(step), number))
    return points


def number_in_store(metric: str, value: object) -> float:
    """A metric's value; SQLite takes text in a column of numbers.

    Raises:
        TypeError: it is no number.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"metric {metric} is {value!r:.60}, not a number")
    return float(value)


def server_points(
    request: Callable[[list[tuple[str, str]]], Any], runs: Sequence[str], metrics: Sequence[str] = HISTORY
) -> Points:
    """The histories of many runs through the bulk endpoint of an MLflow server.

    A request that may have been cut off at SERVER_POINTS is made again for half of its runs.

    Args:
        request: GET of metrics/get-history-bulk with these query parameters; returns its JSON.
        runs: their ids.

    Raises:
        LookupError: the answer has another form, or one run alone has too many points.
    """
    points: Points = {}
    for metric in metrics:
        for row in _server_rows(request, list(runs), metric):
            value = float(row["value"])  # JSON has NaN as a word, and float reads it
            of_run = points.setdefault(str(row["run_id"]), {})
            of_run.setdefault(metric, []).append((int(row["step"]), value))
    return points


def _server_rows(
    request: Callable[[list[tuple[str, str]]], Any], runs: list[str], metric: str
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(runs), SERVER_RUNS):
        chunk = runs[start : start + SERVER_RUNS]
        query = [("metric_key", metric), ("max_results", str(SERVER_POINTS))]
        answer = request([*query, *(("run_id", run) for run in chunk)])
        rows = answer.get("metrics", []) if isinstance(answer, dict) else None
        if not isinstance(rows, list) or any(not {"run_id", "step", "value"} <= set(row) for row in rows):
            raise LookupError("the server's bulk endpoint answers in another form")
        if len(rows) < SERVER_POINTS:
            yield from rows
        elif len(chunk) == 1:
            raise LookupError(f"run {chunk[0]} has {SERVER_POINTS} points of {metric} or more")
        else:
            yield from _server_rows(request, chunk[: len(chunk) // 2], metric)
            yield from _server_rows(request, chunk[len(chunk) // 2 :], metric)


def points_one_by_one(client: Any, runs: Sequence[Any], metrics: Sequence[str] = HISTORY) -> Points:
    """The same from any store, by MLflow's own client with one query for each run and metric.

    Args:
        client: an MlflowClient.
        runs: its runs.
    """
    points: Points = {}
    for run in runs:
        for metric in metrics:
            if metric in run.data.metrics:
                logged = client.get_metric_history(run.info.run_id, metric)
                of_run = points.setdefault(run.info.run_id, {})
                of_run[metric] = [(int(point.step), float(point.value)) for point in logged]
    return points


def history(points: Mapping[str, Sequence[tuple[int, float]]]) -> pd.DataFrame:
    """One run's points as RunRecord.history; metrics in the order of HISTORY."""
    import pandas as pd

    rows = [(step, name, value) for name in HISTORY for step, value in points.get(name, ())]
    return pd.DataFrame(
        {
            "epoch": pd.Series([row[0] for row in rows], dtype="int64"),
            "metric": pd.Series([row[1] for row in rows], dtype="str"),
            "value": pd.Series([row[2] for row in rows], dtype="float64"),
        }
    )
