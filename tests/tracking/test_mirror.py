"""Copying into a tracking store that fails: training never waits, nothing is lost, nothing is there twice."""

from __future__ import annotations

import socket
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from helpers.store import run_folder

from ablation.tracking.mirror import Mirror, RetryQueue
from ablation.tracking.run_folder import NewMetrics, RunFolder
from ablation.tracking.store import Store


class Flaky:
    """A tracking store in memory whose every call fails while `away` is set, some after they were done."""

    uri, local = "http://flaky", False

    def __init__(self) -> None:
        self.away = threading.Event()
        self.runs: list[str] = []
        self.points: dict[tuple[int, str], list[float]] = {}
        self.calls, self.ended, self.files = 0, "", set[str]()

    def _call(self) -> None:
        self.calls += 1
        if self.away.is_set():
            raise ConnectionError("away")

    def open_run(self, identity: dict[str, Any], folder: Path, started_ms: int, tags: dict[str, str]) -> str:
        self._call()
        if not self.runs:
            self.runs.append("r0")
        return self.runs[0]

    def set_running(self, run: str) -> None:
        self._call()

    def epochs_logged(self, run: str, metric: str) -> set[int]:
        self._call()
        return {number for number, name in self.points if name == metric}

    def log_points(self, run: str, line: dict[str, Any]) -> None:
        self._call()
        for name, value in line["metrics"].items():
            self.points.setdefault((line["epoch"], name), []).append(value)
        if self.calls % 3 == 0:
            raise TimeoutError("done, but the answer was lost")

    def log_file(self, run: str, path: Path, folder: str | None) -> None:
        self._call()
        self.files.add(path.name)

    def end_run(self, run: str, tags: dict[str, str], status: str, ended_ms: int | None) -> None:
        self._call()
        self.ended = status

    def errors(self) -> Any:
        return nullcontext()


class Local(Flaky):
    """The same as a file of this machine, which is written at once."""

    local = True

    def log_points(self, run: str, line: dict[str, Any]) -> None:
        for name, value in line["metrics"].items():
            self.points.setdefault((line["epoch"], name), []).append(value)


def epoch(folder: RunFolder, number: int) -> None:
    folder.append_metrics(number, {"val/AP": number / 100})
    folder.file(f"checkpoint-{number:06d}-0123456789abcdef.pt").touch()


def test_a_server_that_comes_and_goes_gets_every_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation.tracking.mirror._FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("ablation.tracking.mirror._LONGEST_PAUSE_S", 0.01)
    store, folder = Flaky(), run_folder(tmp_path)
    mirror = Mirror(store, folder)
    store.away.set()
    mirror.start()
    for number in range(1, 31):
        if number == 10:
            store.away.clear()
        if number == 20:
            store.away.set()
        epoch(folder, number)
        mirror.push()
    folder.set_state("FINISHED")
    store.away.clear()
    mirror.finish([folder.file("config.yaml")])
    assert sorted(store.points) == [(number, "val/AP") for number in range(1, 31)]
    # What is sent again has the same epoch, time and value, which the store takes for one point.
    assert all(set(values) == {number / 100} for (number, _), values in store.points.items())
    assert store.ended == "FINISHED" and store.files == {"config.yaml"} and store.runs == ["r0"]


def test_a_server_that_never_answers_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # If a push waited for the answer, it would wait for ten minutes, and the test with it.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("ablation.tracking.mirror.PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        folder = run_folder(tmp_path)
        mirror = Mirror(Store(f"http://127.0.0.1:{silent.getsockname()[1]}", None), folder)
        mirror.start()
        connection, _ = silent.accept()  # the thread is in the middle of its request
        with connection:
            for number in range(1, 101):
                epoch(folder, number)
                mirror.push()
            assert 1 <= mirror.pending <= 3  # bounded however long it lasts
            mirror.finish([])
            assert "no answer yet" in caplog.text and "`ablation sync`" in caplog.text
    assert len(folder.metrics()) == 100


def test_work_that_always_fails_does_not_block_other_work() -> None:
    def attempt(work: Any, quiet: bool = False) -> bool:
        return bool(work(None))

    queue = RetryQueue(attempt)
    queue.put(lambda done: False)
    reached = threading.Event()
    queue.put(lambda done: reached.set() or True)
    assert reached.wait(60)
    assert not queue.close(0.1)


def test_each_line_is_read_once_and_a_resumed_run_is_read_anew(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    new = NewMetrics(folder)
    assert list(new.lines()) == []
    for number in (1, 2, 3):
        folder.append_metrics(number, {"val/AP": number / 100})
    assert [line["epoch"] for line in new.lines(until=2)] == [1, 2]
    path = folder.file("metrics.jsonl")
    with path.open("ab") as file:
        file.write(b'{"epoch": 4, "time_')  # a crash, or a write under way
    assert [line["epoch"] for line in new.lines()] == [3]
    # What was read before is not looked at again: this damage would be refused.
    content = path.read_bytes()
    path.write_bytes(b"x" * 20 + content[20:])
    with path.open("ab") as file:
        file.write(b'ms": 1, "metrics": {"val/AP": 0.04}}\n')
    assert [line["epoch"] for line in new.lines()] == [4]
    path.write_bytes(content[: content.rindex(b"\n") + 1])
    folder.truncate_metrics(2)
    folder.append_metrics(3, {"val/AP": 0.5})
    assert [(line["epoch"], line["metrics"]["val/AP"]) for line in new.lines()] == [
        *((1, 0.01), (2, 0.02), (3, 0.5))
    ]


def test_a_line_that_could_not_be_used_comes_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    for number in (1, 2, 3):
        folder.append_metrics(number, {"val/AP": 0.5})
    new = NewMetrics(folder)
    for line in new.lines():
        if line["epoch"] == 2:
            break
    assert [line["epoch"] for line in new.lines()] == [2, 3]


def test_pushing_takes_the_same_reading_for_each_epoch(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    mirror = Mirror(Local(), folder)
    mirror.start()
    read = []
    new = mirror._new
    unread = new._unread
    new._unread = lambda: read.append(text := unread()) or text  # type: ignore[method-assign, func-returns-value]
    for number in range(1, 41):
        epoch(folder, number)
        mirror.push()
    assert sum(map(len, read)) == folder.file("metrics.jsonl").stat().st_size
