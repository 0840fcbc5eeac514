"""Status from folders alone: what each folder means, how long the rest takes, what a person sees."""

from __future__ import annotations

import io
import json
import os
import re
import time
from pathlib import Path

import pytest
from helpers.command import ablation, error_line
from rich.console import Console

from ablation.files import exclusive_lock, is_locked
from ablation.records import Declaration, PlannedRun, metric_and_level
from ablation.study.pace import clock, makespan_s, pace_of
from ablation.study.plan_file import extend_plan, plan_file
from ablation.study.run_status import RunStatus, run_status, study_status
from ablation.study.terminal import status_table as show
from ablation.study.terminal.progress import JobInfo, LiveTable
from ablation.tracking.run_folder import SILENT_S, RunFolder
from ablation.tracking.study_folder import read_plan

PARAMS = {"train.epochs": "10", "train.eval_every": "5"}
KEYS = [f"{index:x}" * 64 for index in range(8)]


def line(epoch: int, ended_s: float, train_s: float, eval_s: float | None = None) -> dict[str, object]:
    values = {"time/train_s": train_s, "time/images_per_s": 50.0}
    if eval_s is not None:
        values |= {"time/eval_s": eval_s, "val/AP": epoch / 100}
    return {"epoch": epoch, "time_ms": ended_s * 1000, "metrics": values}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of seven runs, one in each status, in tmp_path/runs."""
    out = tmp_path / "runs"
    planned = [PlannedRun("bce", seed, KEYS[seed], "ablation train", PARAMS) for seed in range(7)]
    extend_plan(out, "s", planned)
    states = ["FINISHED", "DIVERGED", "RUNNING", "KILLED", "FAILED", "PRUNED"]
    for seed, state in enumerate(states):
        folder = RunFolder.of(out, "s", "bce", seed, KEYS[seed])
        folder.path.mkdir(parents=True)
        folder.set_state(state, "because")
        for epoch in range(1, 6):
            metrics = {"time/train_s": 2.0, "time/images_per_s": 50.0}
            folder.append_metrics(epoch, metrics | ({"val/AP": 0.25} if epoch == 5 else {}))
        folder.file("checkpoint-000004-0123456789abcdef.pt").touch()
    return out


def test_each_folder_is_what_it_says_and_a_running_one_that_nobody_trains_is_interrupted(study: Path) -> None:
    found = study_status(study, "s")
    statuses = ["finished", "diverged", "interrupted", "interrupted", "failed", "pruned", "to do"]
    assert [run.status for run in found.runs] == statuses
    assert found.counts == {
        "finished": 1,
        "diverged": 1,
        "interrupted": 2,
        "failed": 1,
        "pruned": 1,
        "to do": 1,
    }
    assert [run.epoch for run in found.runs] == [5, 5, 4, 4, 4, 4, 0]
    assert [run.value for run in found.runs] == [0.25] * 6 + [None]
    assert found.runs[2].note == "its process is gone; goes on from epoch 4 of 10"
    assert found.left_s is None  # nothing is running


def test_a_run_is_running_as_long_as_its_lock_is_held(study: Path) -> None:
    folder = RunFolder.of(study, "s", "bce", 2, KEYS[2])
    with exclusive_lock(folder.file(".lock")) as mine:
        assert mine
        found = study_status(study, "s")
        assert found.runs[2].status == "running" and found.runs[2].epoch == 5
        # Five epochs of 2 s are left to it; with one run at a time the others come after it.
        assert found.runs[2].left_s == pytest.approx(10, abs=3)
        assert found.left_s == pytest.approx(10 + 6 * 2 + 6 * 2 + 10 * 2 - 8, abs=12)
    assert run_status(folder) == "interrupted"


def test_a_run_of_another_machine_is_known_by_its_heartbeat(study: Path) -> None:
    folder = RunFolder.of(study, "s", "bce", 2, KEYS[2])
    folder.write_json("state.json", folder.read_json("state.json") | {"host": "elsewhere"})
    assert run_status(folder) == "interrupted"
    with folder.heartbeat():
        deadline = time.monotonic() + 10
        while run_status(folder) != "running":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    silent = time.time() - SILENT_S - 1
    os.utime(folder.file(".lock"), (silent, silent))
    assert run_status(folder) == "interrupted"


def test_looking_at_a_lock_neither_takes_nor_creates_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert not is_locked(lock) and not lock.exists()
    with exclusive_lock(lock):
        assert is_locked(lock)
        with exclusive_lock(lock) as second:
            assert not second
    assert not is_locked(lock)


def test_status_of_a_study_through_the_command(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    shown = ablation(study.parent, "status", "study=s").stdout
    assert "study s  2 of 7 done: 1 finished, 1 diverged, 2 interrupted, 1 failed, 1 pruned, 1 to do" in shown
    assert "bce seed 4: failed: because" in shown
    assert re.search(r"bce +5 +pruned +4/10 +0\.250", shown)
    content = json.loads(ablation(study.parent, "status", "study=s", "json=true").stdout)
    assert [run["status"] for run in content["runs"]].count("interrupted") == 2
    unknown = ablation(study.parent, "status", "study=t", check=2)
    assert "study=t: no runs/t/plan.json; there are in runs/: s" in error_line(unknown)
    # Watching ends by itself where nothing is running.
    assert "2 of 7 done" in ablation(study.parent, "status", "study=s", "watch=true").stdout
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_pace_is_made_of_medians_so_that_an_interruption_does_not_move_it() -> None:
    lines = [line(1, 9, 9), line(2, 12, 2, 0.5), line(3, 14.5, 2), line(4, 5000, 2, 0.5), line(5, 5002.5, 2)]
    pace = pace_of(lines)
    assert pace is not None
    assert (pace.train_s, pace.eval_s, pace.other_s) == (2, 0.5, 0.5)
    # Epochs 6 to 11 with evaluations after 6, 8, 10 and the last, 11.
    assert pace.left_s(5, 11, 2) == pytest.approx(6 * 2.5 + 4 * 0.5)
    assert pace_of([]) is None


def test_jobs_start_as_soon_as_a_slot_is_free() -> None:
    assert makespan_s([3, 1, 1, 1], 2) == 3
    assert makespan_s([1, 1, 1, 3], 2) == 4
    assert makespan_s([], 2) == 0
    assert makespan_s([2, 2, 2], 1) == 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (277200, "3 d 5 h"),
    ],
)
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def text_of(page: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(page)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [72, 80, 140])
def test_the_live_table_of_many_runs_fits_the_screen(width: int) -> None:
    jobs = [JobInfo(index, f"focal-alpha=0.25-gamma=2 seed {index}", 10) for index in range(40)]
    table = LiveTable(jobs, io.StringIO())
    for index in range(30):
        table.started(index, jobs[index].label, Path("log"))
    for epoch in range(1, 11):
        table.epoch(0, epoch, 10, {"val/AP": 0.5, "time/images_per_s": 99.0, "time/train_s": 1.0})
    table.ended(0, jobs[0].label, "FINISHED", True)
    table.ended(1, jobs[1].label, "killed by SIGKILL (log: x)", False)
    table.epoch(2, 4, 10, {"val/AP": 0.125, "time/train_s": 3.0})
    table.tick()
    for height in (10, 24, 60):
        lines = text_of(table.page(height, time.monotonic()), width)
        assert len(lines) <= height and max(map(len, lines)) <= width
    whole = " ".join(" ".join(lines).split())
    assert "2 of 40 done: " in whole and "28 running" in whole and "1 failed" in whole
    assert re.search(r"2 +running +4/10 +0\.125", whole) and "18 s" in whole  # 6 epochs of 3 s
    table.close()


def test_runs_that_wait_alike_share_a_row() -> None:
    waiting = [RunStatus("bce", seed, str(seed), "to do", 0, 9) for seed in (0, 1, 2, 7)]
    lines = text_of(show.table(waiting, "val/AP"), 80)
    assert sum("to do" in text for text in lines) == 1 and any("0-2, 7" in text for text in lines)


def test_status_compares_by_the_first_declaration_as_the_report_does(tmp_path: Path) -> None:
    first, later = Declaration("val/AP50", 0.01, 0.9), Declaration("val/AP", 0.02, 0.95)
    path = plan_file(tmp_path, "s")
    for declaration in (first, later):
        extend_plan(tmp_path, "s", [PlannedRun("bce", 0, "k" * 64, "ablation train")], declaration)
    assert study_status(tmp_path, "s").metric == "val/AP50"
    assert metric_and_level(read_plan(path).declared) == ("val/AP50", 0.9)
