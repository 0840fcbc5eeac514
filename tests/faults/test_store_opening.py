"""A new store, opened by many at once, or left half made by a process that was killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.fault_trials import Forks, Row, ended, random

from ablation.tracking.store import Store
from ablation.tracking.study_record import study_names


def sizes(short: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "trials", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=pytest.mark.fault)]
    )


@pytest.mark.fault
@pytest.mark.parametrize("trials", [20])
def test_a_new_store_opened_by_8_processes(
    forks: Forks, tmp_path: Path, trials: int, record_property: object
) -> None:
    """No error, one store, one experiment. (One trial of it is among the tests of the store.)"""
    row = Row("new store opened by 8 processes", record_property)
    for number in range(trials):
        with row.trial(str(number)):
            folder = tmp_path / str(number)
            folder.mkdir()
            opening = [forks.call("new_store", "shared", folder=folder) for _ in range(8)]
            assert [ended(process) for process in opening] == [0] * len(opening)
            assert study_names(Store.of(f"sqlite:///{folder}/mlflow.db", None)) == ["shared"]
            assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    assert row.end(trials) == []


@sizes(1, 20)
def test_kill_9_while_a_new_store_is_made(
    forks: Forks, tmp_path: Path, trials: int, record_property: object
) -> None:
    """At any moment of it; the next one to come finds a store, or makes one."""
    row, generator = Row("kill -9 while a new store is made", record_property), random("store")
    whole = tmp_path / "whole"
    whole.mkdir()
    started = time.monotonic()
    assert ended(forks.call("new_store", "s", folder=whole)) == 0
    seconds = time.monotonic() - started
    for number, moment in enumerate(generator.uniform(0, seconds, trials)):
        with row.trial(f"after {moment:.3f} of {seconds:.3f} s"):
            folder = tmp_path / str(number)
            folder.mkdir()
            process = forks.call("new_store", "first", folder=folder)
            time.sleep(moment)
            process.kill()
            ended(process)
            assert ended(forks.call("new_store", "second", folder=folder)) == 0
            found = study_names(Store.of(f"sqlite:///{folder}/mlflow.db", None))
            assert found in (["second"], ["first", "second"])
            assert [path.name for path in folder.iterdir()] == ["mlflow.db"], "something was left behind"
    assert row.end(trials) == []
