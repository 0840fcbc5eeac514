"""Files of runs on another machine: fetched once, looked for once, and again after a run ended anew."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablation.tracking import artifacts


class Client:
    """A server's answers, and how often each question was asked."""

    def __init__(self) -> None:
        # One that no other test has used: what was learned about a run is kept by its address.
        self.address = f"http://{uuid.uuid4()}"
        self.files: dict[str, str] = {}
        self.ended = 1
        self.asked: list[str] = []

    def get_run(self, run_id: str) -> SimpleNamespace:
        self.asked.append("run")
        info = SimpleNamespace(run_id=run_id, artifact_uri="mlflow-artifacts:/1/r", end_time=self.ended)
        return SimpleNamespace(info=info)

    def list_artifacts(self, run_id: str, folder: str) -> list[SimpleNamespace]:
        self.asked.append(f"list {folder}")
        return [SimpleNamespace(path=path) for path in self.files if str(Path(path).parent) == folder]

    def download_artifacts(self, run_id: str, path: str, into: str) -> str:
        self.asked.append(f"file {path}")
        target = Path(into) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.files[path])
        return str(target)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Client()


def fetch(client: Client, path: str) -> str | None:
    file = artifacts.fetch(client, client.address, "r", path)
    return None if file is None else file.read_text()


def test_nothing_is_asked_twice(client: Client) -> None:
    client.files = {"d/a.json": "a", "d/b.json": "b"}
    assert [fetch(client, f"d/{name}.json") for name in "abcabc"] == ["a", "b", None] * 2
    assert client.asked == ["run", "list d", "file d/a.json", "file d/b.json"]


def test_a_run_that_ended_anew_is_asked_again(client: Client) -> None:
    client.files = {"d/a.json": "old"}
    assert fetch(client, "d/a.json") == "old" and fetch(client, "d/b.json") is None
    client.files, client.ended = {"d/a.json": "new", "d/b.json": "late"}, 2
    artifacts.remember(client.address, [client.get_run("r")])  # what loading the study does
    assert fetch(client, "d/a.json") == "new" and fetch(client, "d/b.json") == "late"
