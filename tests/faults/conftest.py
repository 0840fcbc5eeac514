"""What the rows share: a server of processes, an empty store, and the run that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fault_trials import Forks, Reference, make_reference

from ablation.tracking.store import Store


@pytest.fixture(scope="session")
def forks() -> Forks:
    """The server of processes; it ends with the tests."""
    return Forks()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, to be copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store.of(f"sqlite:///{path}", None).prepare()
    return path


@pytest.fixture(scope="session")
def reference(forks: Forks, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The undisturbed run."""
    return make_reference(forks, tmp_path_factory.mktemp("reference"), empty_store)


def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """One line a row: how many of its trials held."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [value for report in reports for name, value in report.user_properties if name == "faults"]
    if found:
        terminalreporter.section("faults")
        for line in sorted(found):
            terminalreporter.line(line)
