"""Runs made elsewhere, from a table, as ordinary run folders, so that the same analysis reads them.

A line of the table is one run. Columns:

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

A run's key comes from its content: importing a table again changes nothing, and an edited line
makes a new run that supersedes the old one. A study is either imported or trained, never both.
"""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablation import __version__
from ablation.errors import AblationError, DataError, UsageError, one_line
from ablation.files import canonical_json, safe_name, sha256_file, sha256_text, write_text
from ablation.records import PlannedRun
from ablation.study.plan_file import extend_plan, plan_file
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES, RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study, study_names
from ablation.training.evaluate import coco_metrics

STATES = ("FINISHED", "DIVERGED", "FAILED", "KILLED")
NOT_METRICS = ("arm", "seed", "state", "reason", "epoch", "detections")
ROUNDING = 6e-4
"""How far a metric of the table may lie from the one computed from the detections: 3 digits."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        where: file and line, for messages.
        params: loss.name and loss.X as texts.
        metrics: full names.
        detections: None where the line names none.
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


def metric_name(column: str) -> str:
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
            rows.append(_row(f"{table}:{line}", cells, detections or table.parent))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not readable as UTF-8 text: {one_line(error, 100)}") from None
    if not rows:
        raise DataError(f"{table}: no runs in it; a line is one run, with arm, seed and metrics")
    seen: dict[tuple[str, int], str] = {}
    losses: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault((row.arm, row.seed), row.where)
        if first != row.where:
            raise DataError(f"{row.where}: arm {row.arm!r} with seed {row.seed} is already at {first}")
        lead = losses.setdefault(row.arm, row)
        if row.params != lead.params:
            raise DataError(
                f"{row.where}: arm {row.arm!r} has other loss settings than at {lead.where}; "
                "give every configuration an arm of its own"
            )
    return rows


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
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{table}:{number}: not JSON: {one_line(error, 100)}") from None
        if not isinstance(value, dict) or any(isinstance(item, dict | list) for item in value.values()):
            raise DataError(f'{table}:{number}: must be one flat object, such as {{"arm": "bce", ...}}')
        yield number, {name: "" if item is None else str(item) for name, item in value.items()}


def _row(where: str, cells: dict[str, str], folder: Path) -> Row:
    missing = [name for name in ("arm", "seed") if not cells.get(name)]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(missing)}; every run needs both")
    arm, state = cells["arm"], cells.get("state") or "FINISHED"
    if not arm.isprintable():
        raise DataError(f"{where}: arm {arm!r}: must be printable text")
    if state not in STATES:
        raise DataError(f"{where}: state: found {state!r}, must be one of {', '.join(STATES)}")
    params = {name: _setting(text) for name, text in cells.items() if name.startswith("loss.") and text}
    params.setdefault("loss.name", arm)
    metrics = {
        metric_name(name): _number(where, name, text)
        for name, text in cells.items()
        if text and name not in NOT_METRICS and not name.startswith("loss.")
    }
    file = cells.get("detections")
    path = folder / file if file else None
    return Row(
        where, arm, _whole(where, "seed", cells["seed"], 0), state, cells.get("reason", ""),
        _whole(where, "epoch", cells.get("epoch") or "1", 1), params, metrics, path,
    )  # fmt: skip


def _setting(text: str) -> str:
    """2, 2.0 and 2.00 are one setting, as in runs that were trained."""
    try:
        return str(float(text))
    except ValueError:
        return text


def _whole(where: str, name: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least and len(text) < 10):
        raise DataError(f"{where}: {name}: found {text!r}, must be a whole number, at least {least}")
    return int(text)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(
            f"{where}: {name}: found {text!r}, must be a number; columns other than "
            f"{', '.join(NOT_METRICS)} and loss.X are metrics"
        ) from None
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {name}: found {text}, must be finite; a run that diverged has state DIVERGED"
        )
    last = metric_name(name).split("/", 1)[1]
    if last.startswith(("AP", "AR")) and not 0 <= value <= 1:
        raise DataError(f"{where}: {name}: found {text}, must lie in [0, 1]; divide percentages by 100")
    return value


# ground truth and detections


def read_ground_truth(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """COCO's ground truth with categories numbered from 1 and annotations too, and old id -> new id."""
    content = _json(path)
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in parts):
        raise DataError(f"{path}: must be COCO's ground truth, an object with {', '.join(parts)}")
    try:
        categories = sorted(content["categories"], key=lambda category: int(category["id"]))
        new = {int(category["id"]): index for index, category in enumerate(categories, 1)}
        images = {int(image["id"]): image for image in content["images"]}
        annotations = []
        for index, old in enumerate(content["annotations"]):
            where = f"{path}: annotation {index + 1}"
            if int(old["category_id"]) not in new:
                raise DataError(f"{where}: category_id {old['category_id']} is none of the categories")
            if int(old["image_id"]) not in images:
                raise DataError(f"{where}: image_id {old['image_id']} is none of the images")
            box = _box(where, old["bbox"])
            annotations.append(
                {
                    "id": index + 1,
                    "image_id": int(old["image_id"]),
                    "category_id": new[int(old["category_id"])],
                    "bbox": box,
                    "area": float(old.get("area", box[2] * box[3])),
                    "iscrowd": int(old.get("iscrowd", 0)),
                }
            )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not COCO's form: {type(error).__name__} {one_line(error, 80)}") from None
    names = [{"id": new[int(category["id"])], "name": str(category["name"])} for category in categories]
    return {"images": list(images.values()), "annotations": annotations, "categories": names}, new


def read_results(path: Path, truth: dict[str, Any], new: dict[int, int]) -> list[dict[str, Any]]:
    """COCO's results, checked against the ground truth, with its new category ids."""
    content = _json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: must be a list of detections in COCO's result format")
    images = {image["id"] for image in truth["images"]}
    results = []
    for index, old in enumerate(content):
        where = f"{path}: detection {index + 1}"
        try:
            if int(old["category_id"]) not in new:
                raise DataError(f"{where}: category_id {old['category_id']} is not in the ground truth")
            if int(old["image_id"]) not in images:
                raise DataError(f"{where}: image_id {old['image_id']} is not in the ground truth")
            result: dict[str, Any] = {
                "image_id": int(old["image_id"]),
                "category_id": new[int(old["category_id"])],
                "bbox": _box(where, old["bbox"]),
                "score": float(old["score"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: not COCO's form: {type(error).__name__} {error}") from None
        if not math.isfinite(result["score"]):
            raise DataError(f"{where}: score {old['score']} is not finite")
        results.append(result)
    return results


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON: {one_line(error, 100)}") from None


def _box(where: str, box: Any) -> list[float]:
    numbers = [float(number) for number in box]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: bbox {box}: must be x, y, width, height, all finite")
    return numbers


# into the store


def import_runs(
    study: str,
    table: Path,
    out: Path,
    store: Store,
    ground_truth: Path | None = None,
    detections: Path | None = None,
    metric: str = "AP",
) -> list[RunFolder]:
    """Enter the runs of a table into a study: folders below `out`, its plan, and MLflow.

    Nothing is written before every line has been checked.

    Args:
        ground_truth: COCO's file that the column `detections` belongs to.
        detections: see read_table.
        metric: what every finished run must have.

    Raises:
        DataError, UsageError: one line each; the study then is as before.
    """
    rows = read_table(table, detections)
    truth, new = read_ground_truth(ground_truth) if ground_truth is not None else ({}, {})
    if ground_truth is not None and not any(row.detections for row in rows):
        raise UsageError(f"gt={ground_truth}: {table} names no detections; it needs a column `detections`")
    rows = [_evaluated(row, truth, new) for row in rows]
    for row in rows:
        if row.state == "FINISHED" and metric_name(metric) not in row.metrics:
            raise DataError(f"{row.where}: a finished run without {metric}; give it, or another metric=NAME")
    _refuse_trained(study, out, store)
    digest = sha256_file(ground_truth) if ground_truth is not None else sha256_text(f"imported {study}")
    data = {"name": (ground_truth or table).name}
    given = {"study": study, "table": str(table), "gt": ground_truth, "detections": detections}
    command = shlex.join(["ablation", "import", *(f"{key}={value}" for key, value in given.items() if value)])
    folders, planned = [], []
    for row in rows:
        params = row.params | {"source": "import"}
        kept = [row.arm, row.seed, row.state, row.reason, row.epoch, params, row.metrics, row.results, digest]
        key = sha256_text(canonical_json(kept))
        folder = RunFolder.of(out, study, row.arm, row.seed, key)
        about = {
            "study": study, "description": f"Imported from {table.name}", "arm": row.arm, "seed": row.seed,
            "key": key, "fingerprint": digest, "command": command, "code": {"version": __version__},
            "data": data, "data_profile": {}, "params": params,
        }  # fmt: skip
        _write(folder, row, about, truth)
        folders.append(folder)
        planned.append(PlannedRun(row.arm, row.seed, key, command, params))
    plan = extend_plan(plan_file(out, study), planned)
    store.prepare()
    for folder in folders:
        Mirror(store, folder, strict=True).finish(folder.artifacts())
    publish_plan(store, study, plan.runs, f"Imported from {table.name}", plan.declared)
    return folders


def _evaluated(row: Row, truth: dict[str, Any], new: dict[int, int]) -> Row:
    """The row with the metrics that its detections give."""
    if row.detections is None:
        return row
    if not truth:
        raise UsageError(f"{row.where}: names detections; give gt=FILE, the ground truth they belong to")
    results = read_results(row.detections, truth, new)
    names = [category["name"] for category in truth["categories"]]
    metrics = {f"val/{name}": value for name, value in coco_metrics(truth, results, names).metrics.items()}
    for name, value in metrics.items():
        if abs(row.metrics.get(name, value) - value) > ROUNDING:
            raise DataError(
                f"{row.where}: {name}: found {row.metrics[name]:g}, but {row.detections} gives {value:.4f}"
            )
    return Row(**{**vars(row), "metrics": row.metrics | metrics, "results": results})


def _refuse_trained(study: str, out: Path, store: Store) -> None:
    """A trained run shares weights and images with its seed's other arms; an imported one cannot."""
    trained = [
        path.parent
        for path in sorted((out / safe_name(study)).glob("*/*/run.json"))
        if RunFolder(path.parent).read_json("run.json").get("params", {}).get("source") != "import"
    ]
    where = str(trained[0]) if trained else ""
    exists = store.sqlite_file is None or store.sqlite_file.exists()
    if not where and exists and study in study_names(store):
        found = [run for run in load_study(store, study).runs if run.params.get("source") != "import"]
        where = f"run {found[0].run_id} in {store.uri}" if found else ""
    if where:
        raise UsageError(f"study={study}: has trained runs ({where}); import into a study of another name")


def _write(folder: RunFolder, row: Row, about: dict[str, Any], truth: dict[str, Any]) -> None:
    """A run's folder, DONE last; one that is there already is left as it is."""
    if folder.state in (*DONE_STATES, "FAILED", "KILLED"):
        return
    try:
        folder.write_json("run.json", about)
        write_text(folder.file("config.yaml"), f"# imported: {about['command']}\n")
        folder.set_state("RUNNING")
        if row.detections is not None:
            folder.write_json("detections/ground_truth.json", truth)
            folder.write_json("detections/val.json", row.results)
        time_ms = folder.read_json("state.json")["started_ms"]
        line = {"epoch": row.epoch, "time_ms": time_ms, "metrics": row.metrics}
        write_text(folder.file("metrics.jsonl"), json.dumps(line) + "\n" if row.metrics else "")
        folder.set_state(row.state, row.reason)
    except OSError as error:
        raise AblationError(f"{folder.path}: cannot be written: {error}") from None
