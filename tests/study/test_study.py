"""Studies through the real command: unions, pairing, skipping, the report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from helpers.command import TINY, ablation, launch_counts, notes, run_folders
from helpers.store import store_in

from ablation.study.app import study_runs
from ablation.tracking.study_record import load_study


def test_a_study_is_the_union_of_its_arms_with_every_seed(finished_study: Path) -> None:
    record = load_study(store_in(finished_study), "little")
    found = sorted((run.arm, run.seed, run.state) for run in record.runs)
    arms = ["bce", "focal-alpha=0.25-gamma=0", "focal-alpha=0.25-gamma=2"]
    assert found == [(arm, seed, "FINISHED") for arm in arms for seed in (0, 1)]
    assert len(record.planned) == 6


def test_arms_with_one_seed_see_the_same_first_and_last_batch(finished_study: Path) -> None:
    batches: dict[int, set[tuple[str, str]]] = {0: set(), 1: set()}
    for run in run_folders(finished_study):
        seed = json.loads((run / "run.json").read_text())["seed"]
        batches[seed].add((notes(run)["first_batch"], notes(run)["last_batch"]))
    assert len(batches[0]) == len(batches[1]) == 1
    assert batches[0] != batches[1]


def test_launching_again_trains_nothing_and_a_new_seed_trains_only_itself(copied_study: Path) -> None:
    before = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(copied_study)}
    result = ablation(copied_study, "train", "-m", "sweeps=little", *TINY)
    assert launch_counts(result.stderr) == {"done": 6, "to do": 0}
    result = ablation(copied_study, "train", "-m", "sweeps=little", *TINY, "seeds=[0,1,2]")
    assert launch_counts(result.stderr) == {"done": 6, "to do": 3}
    after = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(copied_study)}
    assert len(after) == 9 and all(after[run] == time for run, time in before.items())


def test_the_command_that_a_run_is_recorded_with_is_that_run(copied_study: Path) -> None:
    """A study's run repeated alone has the same key, so it is done already."""
    planned = {(run.arm, run.seed): run for run in load_study(store_in(copied_study), "little").planned}
    run = planned["focal-alpha=0.25-gamma=2", 1]
    program, *arguments = shlex.split(run.command)
    assert program == "ablation"
    result = ablation(copied_study, *arguments)
    assert f"seed1-{run.key[:8]}" in result.stdout and "FINISHED already" in result.stderr


def test_the_report_writes_figures_and_tables_and_attaches_them(copied_study: Path) -> None:
    result = ablation(copied_study, "report", "study=little")
    folder = copied_study / "runs" / "little" / "report"
    names = {path.name for path in folder.rglob("*")}
    assert {"runs.csv", "arms.csv", "arms.md"} <= names
    assert sum(name.endswith(".png") for name in names) >= 3, result.stdout
    assert sum(name.endswith(".pdf") for name in names) >= 3
    assert "focal (alpha=0.25, gamma=2)" in result.stdout
    store = store_in(copied_study)
    client = store.client()
    experiment = client.get_experiment_by_name("little")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'study'")
    attached = [file.path for file in client.list_artifacts(parent.info.run_id, "report")]
    assert any(path.endswith("arms.md") for path in attached)


def test_bce_runs_once_per_seed_in_a_plain_multirun(tmp_path: Path) -> None:
    """Two losses and two gammas are three arms, since BCE has no gamma."""
    grid = [*TINY, "loss=bce,focal", "loss.gamma=0,1", "train.epochs=1"]
    arms = ["bce", "focal-alpha=0.25-gamma=0", "focal-alpha=0.25-gamma=1"]
    runs, _ = study_runs([*grid, "seed=0,1"])
    planned = sorted((run.planned.arm, run.config.seed) for run in runs)
    assert planned == [(arm, seed) for arm in arms for seed in (0, 1)]
    ablation(tmp_path, "train", "-m", *grid, "seed=1")
    trained = [run.relative_to(tmp_path / "runs" / "default") for run in run_folders(tmp_path)]
    assert [run.parent.name for run in trained] == arms
    assert all(run.name.startswith("seed1-") for run in trained)
