"""What the rows share: a server of processes, an empty store, and the run that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fault_trials import Forks, Reference, make_reference, read_reference
from helpers.shared import made_once, put_store


@pytest.fixture(scope="session")
def forks() -> Forks:
    """The server of processes."""
    return Forks()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, to be copied."""
    folder = tmp_path_factory.mktemp("store")
    put_store(folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def reference(forks: Forks, empty_store: Path) -> Reference:
    """The undisturbed run."""
    return read_reference(made_once("reference", lambda place: make_reference(forks, place, empty_store)))


def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """One line a row: how many of its trials held."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [value for report in reports for name, value in report.user_properties if name == "faults"]
    if found:
        terminalreporter.section("faults")
        for line in sorted(found):
            terminalreporter.line(line)
