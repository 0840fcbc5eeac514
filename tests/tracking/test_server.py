"""tracking=server: a real MLflow server on a real PostgreSQL, killed in the middle of a study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import ROOT, TINY, ablation, error_line, metrics, run_folders
from helpers.postgres import MlflowServer, postgres

from ablation.records import Plan, PlannedRun
from ablation.tracking import histories
from ablation.tracking.experiment import publish_plan
from ablation.tracking.store import Store
from ablation.tracking.study_record import fetch_artifact, load_study


def test_a_server_needs_an_address(tmp_path: Path) -> None:
    assert "tracking.uri" in error_line(ablation(tmp_path, "train", "tracking=server", *TINY, check=2))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    pytest.importorskip("pg8000", reason="pg8000, the driver for PostgreSQL, is not installed")
    with postgres(tmp_path / "pg") as database:
        mlflow = MlflowServer(database, tmp_path)
        mlflow.start()
        try:
            yield mlflow
        finally:
            mlflow.kill()


def epochs_done(folder: Path) -> list[int]:
    logs = [run / "metrics.jsonl" for run in run_folders(folder)]
    return [len(log.read_text().splitlines()) if log.exists() else 0 for log in logs]


@pytest.mark.slow
def test_a_server_killed_in_mid_training_stops_nothing_and_loses_nothing(
    tmp_path: Path, server: MlflowServer
) -> None:
    epochs = 30
    study = ["-m", "study=team", *TINY, f"train.epochs={epochs}", "loss=focal"]
    study += ["loss.alpha=0.25,0.75", "seed=0,1", "hydra.launcher.slots=4"]
    command = [sys.executable, "-m", "ablation.cli", "train", *study, "tracking=server"]
    command += [f"tracking.uri={server.uri}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (tmp_path / "train.log").open("w") as log:
        training = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
    while len(epochs_done(tmp_path)) < 4 or min(epochs_done(tmp_path)) < 4:
        assert training.poll() is None, (tmp_path / "train.log").read_text()[-3000:]
        time.sleep(0.1)
    server.kill()
    at_kill = epochs_done(tmp_path)
    assert max(at_kill) < epochs, "the training was over before the server was killed"
    while min(epochs_done(tmp_path)) < max(at_kill) + 5:  # without a server they go on
        assert training.poll() is None, (tmp_path / "train.log").read_text()[-3000:]
        time.sleep(0.1)
    server.start()
    assert training.wait(300) == 0, (tmp_path / "train.log").read_text()[-3000:]
    assert epochs_done(tmp_path) == [epochs] * 4

    ablation(tmp_path, "sync", f"uri={server.uri}")
    store = Store.of(server.uri, None)
    client, runs = store.client(), load_study(store, "team").runs
    assert [run.state for run in runs] == ["FINISHED"] * 4
    for run in runs:
        lines = [
            (name, line["epoch"], line["time_ms"], value)
            for line in map(json.loads, (Path(run.folder) / "metrics.jsonl").read_text().splitlines())
            for name, value in line["metrics"].items()
        ]
        points = Counter(
            (point.key, point.step, point.timestamp, point.value)
            for name in run.metrics
            for point in client.get_metric_history(run.run_id, name)
        )
        assert points == Counter(lines) and set(points.values()) == {1}
        assert run.history["epoch"].value_counts().eq(len(set(run.history["metric"]))).any()
    # In bulk as one by one; and a file that has to be downloaded.
    slow = histories.points_one_by_one(client, [client.get_run(run.run_id) for run in runs])
    for run in runs:
        assert run.history.equals(histories.history(slow[run.run_id]))
    file = fetch_artifact(store, runs[0].run_id, "detections/val.json")
    original = Path(runs[0].folder) / "detections/val.json"
    assert file is not None and file != original and file.read_bytes() == original.read_bytes()

    # A plan that grew meanwhile is read anew, also where the runs' folders are on another machine.
    former = load_study(store, "team").planned
    publish_plan(store, "team", Plan([*former, PlannedRun("later", 0, "f" * 64, "c")]))
    assert len(load_study(store, "team").planned) == len(former) + 1

    # The server changed nothing in what was learned.
    ablation(tmp_path, "train", *study[1:-3], "loss.alpha=0.25", "seed=0", "out=alone", "tracking=none")
    (alone,) = (path.parent for path in (tmp_path / "alone").glob("*/*/*/run.json"))
    (same,) = (
        run
        for run in run_folders(tmp_path)
        if run.name == alone.name and run.parent.name == alone.parent.name
    )
    assert metrics(alone) == metrics(same)
    ablation(tmp_path, "report", "study=team", f"uri={server.uri}")
