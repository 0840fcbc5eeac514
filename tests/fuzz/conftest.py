"""`fuzz(READER, mutations)`: the test of one reader; the table of all readers stands at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fuzz import Reader, Result
from helpers.fuzz import fuzz as fuzz_reader


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `mutations` runs in a short form with every suite, and in a long one marked slow."""
    if "mutations" in metafunc.fixturenames:
        slow = pytest.param(400, id="full", marks=pytest.mark.slow)
        metafunc.parametrize("mutations", [pytest.param(6, id="short"), slow])


@pytest.fixture
def fuzz(
    request: pytest.FixtureRequest, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Callable[[Reader, int], Result]:
    """Fuzz a reader that the test's module holds; `failures` of the result are the mutations read wrongly."""

    def check(reader: Reader, mutations: int) -> Result:
        (attribute,) = (name for name, value in vars(request.module).items() if value is reader)
        result = fuzz_reader(request.path, attribute, reader, mutations, tmp_path)
        record_property("fuzz", result.line())
        return result

    return check


def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """The table."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for report in reports for name, value in report.user_properties if name == "fuzz"]
    if rows:
        terminalreporter.section("fuzz")
        for line in [Result.HEAD, *sorted(rows)]:
            terminalreporter.line(line)
