"""An import that is killed, or whose store goes away: afterwards all of it is there or nothing."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.fault_trials import Row, random, with_store
from mlflow import MlflowClient

from ablation.commands.imports.import_runs import import_runs
from ablation.errors import StoreError
from ablation.study.plan_file import plan_file, read_plan
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study, study_names

TABLE = """\
arm,seed,AP,loss.name,loss.alpha
bce,0,0.3,bce,
bce,1,0.4,bce,
focal,0,0.3,focal,0.25
focal,1,0.4,focal,0.25
"""
CALLS = (
    *("get_experiment_by_name", "create_experiment", "search_runs", "create_run", "log_inputs", "log_batch"),
    *("log_artifact", "log_dict", "set_terminated", "set_tag", "get_metric_history", "rename_experiment"),
    *("delete_experiment", "delete_run", "update_run"),
)


def sizes(short: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "trials", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=pytest.mark.fault)]
    )


@contextmanager
def store_fails(first: int, last: int, exit_code: int | None = None) -> Iterator[list[str]]:
    """MLflow's calls from the `first` to the `last`, counted from 1, raise; gives the names of all calls.

    Args:
        exit_code: the process ends with it at the first, as after kill -9.
    """
    calls: list[str] = []

    def failing(name: str, method: Any) -> Any:
        @functools.wraps(method)
        def call(*arguments: Any, **keywords: Any) -> Any:
            calls.append(name)
            if first <= len(calls) <= last:
                if exit_code is not None:
                    os._exit(exit_code)
                raise ConnectionError("the store is gone")
            return method(*arguments, **keywords)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(MlflowClient, name, failing(name, getattr(MlflowClient, name)))
        yield calls


def imported(folder: Path, text: str = TABLE) -> None:
    table = folder / "t.csv"
    table.write_text(text)
    store = Store.of(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "mlartifacts"))
    import_runs("s", table, folder / "runs", store)


def state(folder: Path) -> tuple[Any, ...]:
    """Folders, plan and what the store has of the study, without the paths in the commands."""
    store = Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)
    files = sorted(str(path.relative_to(folder)) for path in (folder / "runs").rglob("*/run.json"))
    plan = read_plan(plan_file(folder / "runs", "s"))
    local = files, [(run.arm, run.seed, run.key) for run in plan.runs], plan.data
    if "s" not in study_names(store):
        return *local, None
    study = load_study(store, "s")
    runs = sorted((run.key, run.state, tuple(run.metrics.items()), len(run.history)) for run in study.runs)
    return *local, (runs, [(run.arm, run.seed, run.key) for run in study.planned])


@pytest.fixture(scope="module")
def whole(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with the imported study, and how many calls to MLflow that took."""
    folder = with_store(tmp_path_factory.mktemp("whole") / "w", empty_store)
    with store_fails(0, 0) as calls:
        imported(folder)
    return folder, len(calls)


@sizes(3, 20)
def test_the_store_goes_away_in_the_middle(
    empty_store: Path, whole: tuple[Path, int], tmp_path: Path, trials: int, record_property: Any
) -> None:
    """Folders and plan as before; importing again gives what an undisturbed import gives."""
    row, generator = Row("the store goes away in the middle of an import", record_property), random("import")
    reference, calls = whole
    for number, first in enumerate(generator.permutation(calls)[:trials] + 1):
        returns = number % 2 == 0  # for the cleaning up
        with row.trial(f"call {first} of {calls}, {'returns' if returns else 'stays away'}"):
            folder = with_store(tmp_path / str(number), empty_store)
            before = state(folder)
            with store_fails(int(first), int(first) if returns else 10**9), pytest.raises(StoreError):
                imported(folder)
            after = state(folder)
            assert after[:3] == before[:3] and not list((folder / "runs").glob("*"))
            assert not returns or after == before
            imported(folder)
            assert state(folder) == state(reference)
    assert row.end(trials) == []


@sizes(2, 20)
def test_an_added_table_that_fails_leaves_the_former_one(
    whole: tuple[Path, int], tmp_path: Path, trials: int, record_property: Any
) -> None:
    """The study that was imported before is as it was, plan and superseded runs included."""
    row, generator = Row("an import into an imported study fails", record_property), random("import again")
    edited = TABLE.replace("0.3", "0.35") + "asl,0,0.4,asl,\n"
    for number, first in enumerate(generator.integers(1, whole[1] // 2, trials)):
        with row.trial(f"call {first}"):
            folder = tmp_path / str(number)
            shutil.copytree(whole[0], folder)
            before = state(folder)
            with store_fails(int(first), int(first)), pytest.raises(StoreError):
                imported(folder, edited)
            assert state(folder) == before
    assert row.end(trials) == []


@sizes(1, 20)
def test_kill_9_of_an_import(
    empty_store: Path, whole: tuple[Path, int], tmp_path: Path, trials: int, record_property: Any
) -> None:
    """The same import, once more, completes it."""
    row, generator = Row("kill -9 of an import", record_property), random("import killed")
    reference, calls = whole
    for number, first in enumerate(generator.permutation(calls)[:trials] + 1):
        with row.trial(f"call {first} of {calls}"):
            folder = with_store(tmp_path / str(number), empty_store)
            child = os.fork()
            if child == 0:
                with store_fails(int(first), int(first), exit_code=9):
                    imported(folder)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            imported(folder)
            assert state(folder) == state(reference)
    assert row.end(trials) == []
