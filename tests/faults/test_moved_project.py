"""A project folder that is moved, copied, linked or renamed between two commands of the real command line."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from helpers.command import TINY, run_folders
from helpers.fault_trials import Fault, Forks, Row, with_store

WAYS = ("moved", "copied", "linked", "runs renamed", "moved, as version 0.1.0 wrote it")


@pytest.fixture(scope="module")
def study(forks: Forks, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with a declared margin."""
    folder = with_store(tmp_path_factory.mktemp("study") / "project", empty_store)
    arguments = ["train", "-m", *TINY, "study=s", "loss=bce,focal", "seed=0,1", "analysis.margin=0.07"]
    code, text = forks.run(folder, arguments)
    assert code == 0, text
    return folder


def report(forks: Forks, folder: Path, *arguments: str) -> tuple[str, int]:
    """(what `ablation report` says of the study, the size of its page in bytes)."""
    code, text = forks.run(folder, ["report", "study=s", "partial=true", *arguments], Fault(figures=False))
    assert code == 0, text
    lines = [line for line in text.splitlines() if not re.match(r"report:|MLflow:|study s: the store", line)]
    (page,) = folder.glob("*/*/report/report.html")
    return "\n".join(lines), page.stat().st_size


def runs_in_store(database: Path) -> list[str]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        active = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' ORDER BY run_uuid"
        return [run for (run,) in connection.execute(active)]
    finally:
        connection.close()


def move(study: Path, folder: Path, way: str) -> tuple[Path, Path, list[str]]:
    """(where the project is now, where it was, further arguments of the commands)."""
    old, new = folder / "old" / "project", folder / "elsewhere" / "project"
    shutil.copytree(study, old)
    with sqlite3.connect(old / "mlflow.db") as database:  # as if it had been trained in that place
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [str(study), str(old)])
        if "0.1.0" in way:
            database.execute("UPDATE tags SET value = ? || '/' || value WHERE key = 'folder'", [str(old)])
    database.close()
    new.parent.mkdir()
    if way == "copied":
        shutil.copytree(old, new)
    else:
        old.rename(new)
    if way == "linked":
        old.symlink_to(new)
        return old, folder / "nowhere", []
    if way == "runs renamed":
        (new / "runs").rename(new / "results")
        return new, old, ["out=results"]
    return new, old, []


@pytest.mark.parametrize(
    "trials", [pytest.param(1, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_a_moved_project(
    forks: Forks, study: Path, tmp_path: Path, trials: int, record_property: object
) -> None:
    """Same verdict, same numbers, same page; one run stays one run; the old place is left alone."""
    row = Row("moved project folder", record_property)
    expected_text, expected_bytes = report(forks, study)
    (page,) = study.glob("*/*/report/report.html")
    assert "0.07" in page.read_text()
    runs = runs_in_store(study / "mlflow.db")
    key = run_folders(study)[0].name.split("-")[1]
    for number in range(trials):
        way = WAYS[number % len(WAYS)]
        with row.trial(way):
            project, old, out = move(study, tmp_path / str(number), way)
            before = sorted(old.rglob("*"))
            for _ in range(number % 3):  # a sync before the report must not change it
                code, text = forks.run(project, ["sync", *out])
                assert code == 0, text
            text, size = report(forks, project, *out)
            assert text == expected_text
            assert abs(size - expected_bytes) < 2000, f"{size} bytes, not {expected_bytes}"
            for _ in range(2):
                code, text = forks.run(project, ["sync", *out])
                assert code == 0, text
            assert runs_in_store(project / "mlflow.db") == runs, "a run is in MLflow twice"
            code, text = forks.run(
                project, ["export", f"run={key}", "format=pth", f"to={tmp_path}/{number}.pth"]
            )
            assert code == 0, text
            assert sorted(old.rglob("*")) == before, "the old place was written to"
            assert way == "copied" or not old.exists()
    assert row.end(trials) == []
