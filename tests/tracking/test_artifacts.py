"""Files of runs on another machine: fetched once, looked for once, and again after a run ended anew."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablation.errors import StoreError
from ablation.tracking import artifacts


class Client:
    """A server's answers, and how often each question was asked."""

    def __init__(self) -> None:
        # One that no other test has used: what was learned about a run is kept by its address.
        self.address = f"http://{uuid.uuid4()}"
        self.files: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.ended = 1
        self.asked: list[str] = []

    def get_run(self, run_id: str) -> SimpleNamespace:
        self.asked.append("run")
        info = SimpleNamespace(run_id=run_id, artifact_uri="mlflow-artifacts:/1/r", end_time=self.ended)
        return SimpleNamespace(info=info)

    def list_artifacts(self, run_id: str, folder: str) -> list[SimpleNamespace]:
        self.asked.append(f"list {folder}")
        paths = [path for path in self.files if str(Path(path).parent) == folder]
        return [SimpleNamespace(path=path, file_size=self.sizes.get(path)) for path in paths]

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


def copies(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", ["B", "", "aa", "\x00"], ids=["changed", "empty", "longer", "zero"])
def test_a_damaged_copy_is_downloaded_anew(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    """It went into a report without a word."""
    client.files = {"d/a.json": "a"}
    fetch(client, "d/a.json")
    (copy,) = (path for path in copies(tmp_path) if path.name == "a.json")
    copy.write_text(content)
    assert fetch(client, "d/a.json") == "a" and copy.read_text() == "a"
    assert client.asked.count("file d/a.json") == 2 and "damaged since it was downloaded" in caplog.text
    assert fetch(client, "d/a.json") == "a" and client.asked.count("file d/a.json") == 2


@pytest.mark.parametrize("what", ["none", "empty", "of another file", "binary"])
def test_a_copy_without_its_hash_is_not_believed(client: Client, tmp_path: Path, what: str) -> None:
    """As the copies of 0.1.0 are."""
    client.files = {"d/a.json": "a"}
    fetch(client, "d/a.json")
    (digest,) = (path for path in copies(tmp_path) if path.suffix == ".sha256")
    if what == "none":
        digest.unlink()
    else:
        digest.write_bytes({"empty": b"", "of another file": b"0" * 64, "binary": b"\xff" * 64}[what])
    assert fetch(client, "d/a.json") == "a" and client.asked.count("file d/a.json") == 2


def test_a_download_that_was_cut_off_is_no_file(client: Client, tmp_path: Path) -> None:
    client.files, client.sizes = {"d/a.json": "abc"}, {"d/a.json": 5}
    with pytest.raises(StoreError, match="came with 3 of 5 bytes"):
        fetch(client, "d/a.json")
    assert copies(tmp_path) == []
