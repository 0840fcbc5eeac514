"""The table that `ablation import` reads: a line is one run.

Columns:

    arm, seed        needed; seed: a whole number, at least 0, each arm and seed once
    loss.name        the confidence loss; `bce` with pos_weight 1 is the baseline. Without this
                     column the arm's name stands for it
    loss.X           a setting of the loss; empty: none
    state            FINISHED (the default), DIVERGED, FAILED or KILLED; only FINISHED runs are data
    reason           why it is in that state
    epoch            the epoch that the values belong to; default 1
    detections       a file of detections in COCO's result format; metrics are computed from it
    anything else    a metric: a name without a slash becomes val/NAME. APs and ARs are in [0, 1]

Lines that begin with # and empty lines are passed over. Runs of different arms are paired where
their seeds are equal, so give equal seeds only to runs that shared one.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablation.errors import DataError, UsageError, one_line
from ablation.files import metric_name as mlflow_name

STATES = ("FINISHED", "DIVERGED", "FAILED", "KILLED")
LONGEST_ARM = 200
NOT_METRICS = ("arm", "seed", "state", "reason", "epoch", "detections")


Epoch = tuple[int, dict[str, float]]
"""The number of an epoch, from 1, and its metrics by full name."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        where: file and line, for messages.
        params: loss.name and loss.X as texts.
        metrics: full names.
        detections: None where the line names none.
        epochs: every epoch with its metrics, where they are known; the last one is `epoch`.
    """

    where: str
    arm: str
    seed: int
    state: str
    reason: str
    epoch: int
    params: dict[str, str]
    metrics: dict[str, float]
    detections: Path | None
    results: list[dict[str, Any]] = field(default_factory=list)
    epochs: tuple[Epoch, ...] = ()


def metric_of(column: str) -> str:
    """AP -> val/AP; a name with a slash stays."""
    return column if "/" in column else f"val/{column}"


def read_table(table: Path, detections: Path | None = None) -> list[Row]:
    """The rows of a .csv or .jsonl file, checked one by one and against each other.

    Args:
        detections: the folder that the column `detections` is relative to; None: the table's.

    Raises:
        DataError: naming file and line.
        UsageError: no such file, or it has another ending.
    """
    if not table.is_file():
        raise UsageError(f"table={table}: no such file; give a .csv or a .jsonl")
    readers = {".csv": _csv_lines, ".jsonl": _json_lines}
    if table.suffix not in readers:
        raise UsageError(f"table={table}: must end in .csv or .jsonl")
    rows: list[Row] = []
    try:
        for line, cells in readers[table.suffix](table):
            _check_columns(f"{table}:{line}", cells)
            rows.append(_row(f"{table}:{line}", cells, detections or table.parent))
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not readable as UTF-8 text: {one_line(error, 100)}") from None
    except (csv.Error, OSError) as error:
        raise DataError(f"{table}: not readable as a table: {one_line(error, 100)}") from None
    if not rows:
        raise DataError(f"{table}: no runs in it; a line is one run, with arm, seed and metrics")
    check_runs(rows)
    return rows


def check_runs(rows: list[Row]) -> None:
    """Each arm and seed once, and the runs of an arm with equal settings of the loss."""
    seen: dict[tuple[str, int], str] = {}
    losses: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault((row.arm, row.seed), row.where)
        if first != row.where:
            raise DataError(f"{row.where}: arm {row.arm!r} with seed {row.seed} is already at {first}")
        lead = losses.setdefault(row.arm, row)
        if row.params != lead.params:
            names = row.params.keys() | lead.params.keys()
            other = min(name for name in names if row.params.get(name) != lead.params.get(name))
            what = "loss settings" if other.startswith("loss.") else "settings"
            raise DataError(
                f"{row.where}: arm {row.arm!r} has other {what} than at {lead.where} ({other}); "
                "give every configuration an arm of its own"
            )


def _csv_lines(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    head: list[str] | None = None
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for cells in reader:
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if head is None:
                head = [cell.strip() for cell in cells]
                twice = {name for name in head if head.count(name) > 1}
                if twice or "" in head:
                    what = f"column {min(twice)!r} occurs twice" if twice else "a column has no name"
                    raise DataError(f"{table}:{reader.line_num}: {what}")
                continue
            if len(cells) != len(head):
                raise DataError(f"{table}:{reader.line_num}: {len(cells)} cells under {len(head)} columns")
            yield reader.line_num, {name: cell.strip() for name, cell in zip(head, cells, strict=True)}


def _json_lines(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            value = json.loads(line, object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}:{number}: not JSON: {one_line(error, 100)}") from None
        plain = (str, int, float, type(None))
        if not isinstance(value, dict) or any(
            isinstance(item, bool) or not isinstance(item, plain) for item in value.values()
        ):
            raise DataError(f'{table}:{number}: must be one flat object, such as {{"arm": "bce", ...}}')
        yield number, {name: "" if item is None else str(item) for name, item in value.items()}


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads, which else takes the last of two equal keys."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice")
    return content


def _check_columns(where: str, cells: dict[str, str]) -> None:
    """Refuse what MLflow could not take, or what would be two values of one metric."""
    metrics: dict[str, str] = {}
    for name, text in cells.items():
        try:
            f"{name}{text}".encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: {name!r}: not valid Unicode text") from None
        if name in NOT_METRICS:
            continue
        if not name.isprintable() or not name.strip():
            raise DataError(f"{where}: column {one_line(repr(name), 80)}: must be printable text")
        if name.startswith("loss."):
            if mlflow_name(name) != name:
                allowed = "letters, digits, spaces and _-.:"
                raise DataError(f"{where}: column {name!r}: MLflow takes only {allowed} in a name; rename it")
            continue
        other = metrics.setdefault(metric_of(name), name)
        if other != name:
            raise DataError(f"{where}: columns {other!r} and {name!r} are one metric, {metric_of(name)}")


def _row(where: str, cells: dict[str, str], folder: Path) -> Row:
    missing = [name for name in ("arm", "seed") if not cells.get(name)]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(missing)}; every run needs both")
    arm, state = cells["arm"], cells.get("state") or "FINISHED"
    if not arm.isprintable() or len(arm) > LONGEST_ARM:
        most = f"must be printable text of at most {LONGEST_ARM} characters"
        raise DataError(f"{where}: arm {one_line(repr(arm), 80)}: {most}")
    if state not in STATES:
        raise DataError(f"{where}: state: found {state!r}, must be one of {', '.join(STATES)}")
    params = {name: _setting(text) for name, text in cells.items() if name.startswith("loss.") and text}
    params.setdefault("loss.name", arm)
    metrics = {
        metric_of(name): _number(where, name, text)
        for name, text in cells.items()
        if text and name not in NOT_METRICS and not name.startswith("loss.")
    }
    file = cells.get("detections")
    path = folder / file if file else None
    return Row(
        where=where,
        arm=arm,
        seed=_whole(where, "seed", cells["seed"], 0),
        state=state,
        reason=cells.get("reason", ""),
        epoch=_whole(where, "epoch", cells.get("epoch") or "1", 1),
        params=params,
        metrics=metrics,
        detections=path,
    )


def _setting(text: str) -> str:
    """2, 2.0 and 2.00 are one setting, as in runs that were trained."""
    try:
        return str(float(text))
    except ValueError:
        return text


def _whole(where: str, name: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        value = one_line(repr(text), 80)
        raise DataError(f"{where}: {name}: found {value}, must be a whole number, at least {least}")
    return int(text)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(
            text if text.isascii() and "_" not in text else ""
        )  # float takes 1_000 and other digits
    except ValueError:
        raise DataError(
            f"{where}: {name}: found {text!r}, must be a number; columns other than "
            f"{', '.join(NOT_METRICS)} and loss.X are metrics"
        ) from None
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {name}: found {text}, must be finite; a run that diverged has state DIVERGED"
        )
    last = metric_of(name).split("/", 1)[1]
    if last.startswith(("AP", "AR")) and not 0 <= value <= 1:
        raise DataError(f"{where}: {name}: found {text}, must lie in [0, 1]; divide percentages by 100")
    return value
