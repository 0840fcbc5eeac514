"""Studies through the real command: unions, pairing, skipping, failures, errors that a person reads."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import (
    ROOT,
    TINY,
    ablation,
    error_line,
    metrics,
    notes,
    run_folders,
    started_from_nothing,
)

from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

SWEEP = """\
# @package _global_
study: little
seeds: [0, 1]
arms:
  - {loss: bce}
  - {loss: focal, loss.alpha: 0.25, loss.gamma: [0, 2]}
"""


def store_in(folder: Path) -> Store:
    """The folder's SQLite store."""
    return Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three arms and two seeds, from a sweep file of the user's own."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "little.yaml").write_text(SWEEP)
    started_from_nothing(folder, "train", "-m", "sweeps=little", *TINY)
    return folder


def test_a_study_is_the_union_of_its_arms_with_every_seed(study: Path) -> None:
    record = load_study(store_in(study), "little")
    found = sorted((run.arm, run.seed, run.state) for run in record.runs)
    arms = ["bce", "focal-alpha=0.25-gamma=0", "focal-alpha=0.25-gamma=2"]
    assert found == [(arm, seed, "FINISHED") for arm in arms for seed in (0, 1)]
    assert len(record.planned) == 6


def test_arms_with_one_seed_see_the_same_first_and_last_batch(study: Path) -> None:
    batches: dict[int, set[tuple[str, str]]] = {0: set(), 1: set()}
    for run in run_folders(study):
        seed = json.loads((run / "run.json").read_text())["seed"]
        batches[seed].add((notes(run)["first_batch"], notes(run)["last_batch"]))
    assert len(batches[0]) == len(batches[1]) == 1
    assert batches[0] != batches[1]


def test_launching_again_trains_nothing_and_a_new_seed_trains_only_itself(study: Path) -> None:
    before = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(study)}
    result = ablation(study, "train", "-m", "sweeps=little", *TINY)
    assert "6 done already, 0 to do" in result.stderr
    result = ablation(study, "train", "-m", "sweeps=little", *TINY, "seeds=[0,1,2]")
    assert "6 done already, 3 to do" in result.stderr
    after = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(study)}
    assert len(after) == 9 and all(after[run] == time for run, time in before.items())


def test_the_command_that_a_run_is_recorded_with_is_that_run(study: Path) -> None:
    """A study's run repeated alone has the same key, so it is done already."""
    planned = {(run.arm, run.seed): run for run in load_study(store_in(study), "little").planned}
    run = planned["focal-alpha=0.25-gamma=2", 1]
    program, *arguments = shlex.split(run.command)
    assert program == "ablation"
    result = ablation(study, *arguments)
    assert f"seed1-{run.key[:8]}" in result.stdout and "FINISHED already" in result.stderr


def test_the_report_writes_figures_and_tables_and_attaches_them(study: Path) -> None:
    result = ablation(study, "report", "study=little")
    folder = study / "runs" / "little" / "report"
    names = {path.name for path in folder.rglob("*")}
    assert {"runs.csv", "arms.csv", "arms.md"} <= names
    assert sum(name.endswith(".png") for name in names) >= 3, result.stdout
    assert sum(name.endswith(".pdf") for name in names) >= 3
    assert "focal (alpha=0.25, gamma=2)" in result.stdout
    store = store_in(study)
    client = store.client()
    experiment = client.get_experiment_by_name("little")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'study'")
    attached = [file.path for file in client.list_artifacts(parent.info.run_id, "report")]
    assert any(path.endswith("arms.md") for path in attached)


def test_bce_runs_once_per_seed_in_a_plain_multirun(tmp_path: Path) -> None:
    ablation(tmp_path, "train", "-m", *TINY, "loss=bce,focal", "loss.gamma=0,1", "seed=0,1", "train.epochs=1")
    arms = sorted(str(run.relative_to(tmp_path / "runs" / "default").parent) for run in run_folders(tmp_path))
    assert arms == sorted(["bce", "focal-alpha=0.25-gamma=0", "focal-alpha=0.25-gamma=1"] * 2)


def test_a_failed_run_costs_itself_alone_and_is_named(tmp_path: Path) -> None:
    """One arm's file of metrics cannot be written, because a folder is in its place."""
    focal = [*TINY, "loss=focal"]
    ablation(tmp_path, "train", *focal, "loss.gamma=1", "train.stop_after=1")
    (broken,) = run_folders(tmp_path)
    (broken / "metrics.jsonl").unlink()
    (broken / "metrics.jsonl").mkdir()
    result = ablation(tmp_path, "train", "-m", *focal, "loss.gamma=0,1,2", check=1)
    message = error_line(result)
    assert message.startswith(
        "ablation: 1 of 3 runs failed: focal-alpha=0.25-gamma=1 seed 0: IsADirectoryError"
    )
    assert "log: " in message
    assert [len(metrics(run)) for run in run_folders(tmp_path) if run != broken] == [2, 2]
    states = {run.arm: run.state for run in load_study(store_in(tmp_path), "default").runs}
    assert states == {
        "focal-alpha=0.25-gamma=0": "FINISHED",
        "focal-alpha=0.25-gamma=1": "FAILED",
        "focal-alpha=0.25-gamma=2": "FINISHED",
    }


def test_a_run_that_is_killed_is_named_and_goes_on_when_launched_again(tmp_path: Path) -> None:
    """kill -9 in the middle; the other run is untouched, and the numbers are those of a run left alone."""
    command = ["train", "-m", *TINY, "loss=bce,focal", "train.epochs=8"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "ablation.cli", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    pattern = "runs/default/focal*/seed0-*/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not any(path.read_text().count("\n") >= 2 for path in tmp_path.glob(pattern)):
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.01)
    (lines,) = tmp_path.glob(pattern)
    os.kill(json.loads((lines.parent / "state.json").read_text())["pid"], signal.SIGKILL)
    errors = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == 1
    assert "1 of 2 runs failed: focal-alpha=0.25-gamma=2 seed 0: killed by SIGKILL" in errors
    # Somebody ended it, it did not fail: the next launch takes it up without being asked to.
    assert {run.state for run in load_study(store_in(tmp_path), "default").runs} == {"FINISHED", "KILLED"}

    assert "1 done already, 1 to do" in ablation(tmp_path, *command).stderr
    assert [line["epoch"] for line in metrics(lines.parent)] == list(range(1, 9))
    ablation(tmp_path, "train", *TINY, "loss=focal", "train.epochs=8", "out=undisturbed", "tracking=none")
    (left_alone,) = (tmp_path / "undisturbed").glob("*/*/*")
    assert metrics(left_alone) == metrics(lines.parent)
    records = load_study(store_in(tmp_path), "default").runs
    assert [run.state for run in records] == ["FINISHED", "FINISHED"]
    for run in records:
        assert run.history.query("metric == 'val/AP'")["epoch"].tolist() == list(range(1, 9))


def test_sync_logs_what_was_never_tracked(tmp_path: Path) -> None:
    ablation(tmp_path, "train", *TINY, "tracking=none")
    assert not (tmp_path / "mlflow.db").exists()
    for _ in range(2):
        ablation(tmp_path, "sync")
    (record,) = load_study(store_in(tmp_path), "default").runs
    assert record.state == "FINISHED"
    assert record.history.query("metric == 'val/AP'")["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["train", "-m", "sweeps=typo"],
            2,
            "sweeps=typo: no such file sweeps/typo.yaml; there are: alpha_gamma",
        ),
        (["train", "sweeps=demo"], 2, "add -m"),
        (["train", "loss=fokal"], 2, "loss=fokal: no such file loss/fokal.yaml; there are: "),
        (["train", "los=focal"], 2, "los: no such key; there are: data, model, loss"),
        (["train", "loss=focal", "loss.gama=1"], 2, "loss.gama: no such key; there are: alpha, gamma"),
        (["train", "loss=focal", "loss.gamma=-1"], 2, "loss.gamma: found -1.0, must be >= 0"),
        (["train", "loss=focal", "loss.gamma=x"], 2, "loss.gamma"),
        (["train", "loss=focal", "loss.alpha=2"], 2, "loss.alpha: found 2.0, must be in [0, 1]"),
        (
            ["train", "train.epochs=abc"],
            2,
            "train.epochs=abc: Value 'abc' of type 'str' could not be converted",
        ),
        (["train", "loss.gamma="], 2, "loss.gamma"),
        (["train", "loss=bce", "loss.gamma=2"], 2, "loss.gamma: no such key; there are: pos_weight"),
        (["train", "data=voc", "data.root=nowhere"], 2, "nowhere"),
        (["train", "data.train_images=4", "data.val_images=4", "train.batch_size=16"], 2, "train.batch_size"),
        (["train", "loss=focal", "loss.gamma=0,-1", "-m"], 2, "loss.gamma: found -1.0"),
        (["report", "study=nothing"], 2, "mlflow.db"),
        (["report"], 2, "study=... is missing"),
        (["report", "studdy=x"], 2, "studdy=x"),
        (["repport"], 2, "repport: no such command"),
        (["sync", "out=nowhere"], 2, "nowhere"),
    ],
)
def test_wrong_usage_gets_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = ablation(tmp_path, *arguments, check=code)
    assert message in error_line(result)
    assert result.stderr.count("\n") == 1, result.stderr
    assert run_folders(tmp_path) == []


def test_a_store_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, whatever its name says")
    result = ablation(tmp_path, "train", *TINY, check=1)
    assert "mlflow.db: not an SQLite database" in error_line(result)


def test_an_empty_store_file_left_by_an_interrupted_start_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    ablation(tmp_path, "train", *TINY, "train.epochs=1")
    assert len(load_study(store_in(tmp_path), "default").runs) == 1
