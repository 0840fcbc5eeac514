"""Runs made elsewhere, from a table, as ordinary run folders, so that the same analysis reads them.

A run's key comes from its content: importing a table again changes nothing, and an edited line
makes a new run that supersedes the old one. A study is either imported or trained, never both.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation import __version__
from ablation.commands.imports.enter import ImportedRun, enter_runs
from ablation.commands.imports.table import Row, metric_of, read_table
from ablation.commands.imports.ultralytics import is_ultralytics, read_runs
from ablation.data.coco_files import read_ground_truth, read_results
from ablation.errors import DataError, UsageError
from ablation.files import sha256_file, sha256_text
from ablation.records import StudyData
from ablation.study.plan_file import other_data, plan_file, refuse_renamed
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan, study_folder
from ablation.tracking.study_record import load_study, study_names
from ablation.training.evaluate import coco_metrics

ROUNDING = 6e-4
"""How far a metric of the table may lie from the one computed from the detections: 3 digits."""


def import_runs(
    study: str,
    table: Path,
    out: Path,
    store: Store,
    ground_truth: Path | None = None,
    detections: Path | None = None,
    metric: str = "AP",
    replace_data: bool = False,
    voc_inclusive: bool = True,
) -> list[RunFolder]:
    """Enter the runs of a table into a study: folders below `out`, its plan, and MLflow. All or nothing.

    Args:
        table: see read_table; or ultralytics' results.csv, or a folder of them.
        ground_truth: COCO's file that the column `detections` belongs to.
        detections: see read_table.
        metric: what every finished run must have.
        replace_data: runs of another ground truth leave the study's plan; else they are a UsageError.
        voc_inclusive: of AP50_voc, where it is computed from detections; see voc.voc_matches.

    Raises:
        DataError, UsageError, StoreError: one line each; the study is then as before.
    """
    rows = read_runs(table) if is_ultralytics(table) else read_table(table, detections)
    truth, new_ids = read_ground_truth(ground_truth) if ground_truth is not None else ({}, {})
    if ground_truth is not None and not any(row.detections for row in rows):
        raise UsageError(f"gt={ground_truth}: {table} names no detections; it needs a column `detections`")
    rows = [_evaluated(row, truth, new_ids, voc_inclusive) for row in rows]
    for row in rows:
        if row.state == "FINISHED" and metric_of(metric) not in row.metrics:
            raise DataError(f"{row.where}: a finished run without {metric}; give it, or another metric=NAME")
    refuse_renamed(out, study)
    _refuse_trained(study, out, store)
    facts = _study_facts(study, table, ground_truth, detections)
    data = StudyData(facts["fingerprint"], f"gt={ground_truth}" if ground_truth else "no ground truth")
    former = other_data(out, study, read_plan(plan_file(out, study)), data)
    if former is not None and not replace_data:
        raise UsageError(former.refusal(data))
    runs = [ImportedRun.of(row, facts, truth) for row in rows]
    return enter_runs(study, runs, out, store, facts, data)


def _study_facts(
    study: str, table: Path, ground_truth: Path | None, detections: Path | None
) -> dict[str, Any]:
    """What run.json says of every run of the table."""
    digest = sha256_file(ground_truth) if ground_truth is not None else sha256_text(f"imported {study}")
    arguments = {"study": study, "table": str(table), "gt": ground_truth, "detections": detections}
    words = [f"{name}={value}" for name, value in arguments.items() if value]
    return {
        "study": study,
        "description": f"Imported from {table.name}",
        "fingerprint": digest,
        "command": shlex.join(["ablation", "import", *words]),
        "code": {"version": __version__},
        "data": {"name": (ground_truth or table).name},
        "data_profile": {},
    }


def _evaluated(row: Row, truth: dict[str, Any], new_ids: dict[int, int], voc_inclusive: bool) -> Row:
    """The row with the metrics that its detections give."""
    if row.detections is None:
        return row
    if not truth:
        raise UsageError(f"{row.where}: names detections; give gt=FILE, the ground truth they belong to")
    results = read_results(row.detections, truth, new_ids)
    names = [category["name"] for category in truth["categories"]]
    evaluation = coco_metrics(truth, results, names, voc_inclusive=voc_inclusive)
    metrics = {f"val/{name}": value for name, value in evaluation.metrics.items()}
    for name, value in metrics.items():
        if abs(row.metrics.get(name, value) - value) > ROUNDING:
            raise DataError(
                f"{row.where}: {name}: found {row.metrics[name]:g}, but {row.detections} gives {value:.4f}"
            )
    return replace(row, metrics=row.metrics | metrics, results=results)


def _refuse_trained(study: str, out: Path, store: Store) -> None:
    """A trained run shares weights and images with its seed's other arms; an imported one cannot."""
    trained = [
        path.parent
        for path in sorted(study_folder(out, study).glob("*/*/run.json"))
        if RunFolder(path.parent).read_json("run.json").get("params", {}).get("source") != "import"
    ]
    where = str(trained[0]) if trained else ""
    exists = store.sqlite_file is None or store.sqlite_file.exists()
    if not where and exists and study in study_names(store):
        # A run without parameters is what an import left that broke off: they are written after its creation.
        params = [(run.run_id, run.params) for run in load_study(store, study).runs if run.params]
        recorded = [run_id for run_id, settings in params if settings.get("source") != "import"]
        where = f"run {recorded[0]} in {store.uri}" if recorded else ""
    if where:
        raise UsageError(f"study={study}: has trained runs ({where}); import into a study of another name")
