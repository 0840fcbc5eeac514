"""Studies with faults through the real command: runs that fail or are killed, stores that are none."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.command import TINY, ablation, error_line, launch_counts, metrics, run_folders
from helpers.shared import put_store
from helpers.store import store_in

from ablation.tracking.study_record import load_study


def test_a_failed_run_costs_itself_alone_and_is_named(tmp_path: Path) -> None:
    """One arm's file of metrics cannot be written, because a folder is in its place."""
    focal = [*TINY, "loss=focal"]
    ablation(tmp_path, "train", *focal, "loss.gamma=1", "train.stop_after=1")
    (broken,) = run_folders(tmp_path)
    (broken / "metrics.jsonl").unlink()
    (broken / "metrics.jsonl").mkdir()
    result = ablation(tmp_path, "train", "-m", *focal, "loss.gamma=0,1", check=1)
    message = error_line(result)
    assert message.startswith("ablation: 1 of 2 runs failed: focal-alpha=0.25-gamma=1 seed 0: ")
    assert "metrics.jsonl: cannot be read (Is a directory)" in message and "log: " in message
    assert [len(metrics(run)) for run in run_folders(tmp_path) if run != broken] == [2]
    states = {run.arm: run.state for run in load_study(store_in(tmp_path), "default").runs}
    assert states == {
        "focal-alpha=0.25-gamma=0": "FINISHED",
        "focal-alpha=0.25-gamma=1": "FAILED",
    }


def test_a_run_that_is_killed_is_named_and_goes_on_when_launched_again(tmp_path: Path) -> None:
    """kill -9 in the middle; the other run is untouched, and the numbers are those of a run left alone."""
    command = ["train", "-m", *TINY, "loss=bce,focal", "train.epochs=6"]
    put_store(tmp_path)
    with ThreadPoolExecutor() as pool:
        launched = pool.submit(ablation, tmp_path, *command, check=1)
        pattern = "runs/default/focal*/seed0-*/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not any(path.read_text().count("\n") >= 2 for path in tmp_path.glob(pattern)):
            assert time.monotonic() < deadline and not launched.done()
            time.sleep(0.01)
        (lines,) = tmp_path.glob(pattern)
        os.kill(json.loads((lines.parent / "state.json").read_text())["pid"], signal.SIGKILL)
        errors = launched.result(timeout=120).stderr
    assert "1 of 2 runs failed: focal-alpha=0.25-gamma=2 seed 0: killed by SIGKILL" in errors
    # Somebody ended it, it did not fail: the next launch takes it up without being asked to.
    assert {run.state for run in load_study(store_in(tmp_path), "default").runs} == {"FINISHED", "KILLED"}

    assert launch_counts(ablation(tmp_path, *command).stderr) == {"done": 1, "to do": 1}
    assert [line["epoch"] for line in metrics(lines.parent)] == list(range(1, 7))
    ablation(tmp_path, "train", *TINY, "loss=focal", "train.epochs=6", "out=undisturbed", "tracking=none")
    (left_alone,) = (tmp_path / "undisturbed").glob("*/*/*")
    assert metrics(left_alone) == metrics(lines.parent)
    records = load_study(store_in(tmp_path), "default").runs
    assert [run.state for run in records] == ["FINISHED", "FINISHED"]
    for run in records:
        assert run.history.query("metric == 'val/AP'")["epoch"].tolist() == list(range(1, 7))


def test_sync_logs_what_was_never_tracked(tmp_path: Path) -> None:
    ablation(tmp_path, "train", *TINY, "tracking=none")
    assert not (tmp_path / "mlflow.db").exists()
    for _ in range(2):
        ablation(tmp_path, "sync")
    (record,) = load_study(store_in(tmp_path), "default").runs
    assert record.state == "FINISHED"
    assert record.history.query("metric == 'val/AP'")["epoch"].tolist() == [1, 2]


def test_a_store_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, whatever its name says")
    result = ablation(tmp_path, "train", *TINY, check=1)
    assert "mlflow.db: not an SQLite database" in error_line(result)


def test_an_empty_store_file_left_by_an_interrupted_start_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    ablation(tmp_path, "train", *TINY, "train.epochs=1")
    assert len(load_study(store_in(tmp_path), "default").runs) == 1
