"""A password in the address of a tracking store: no file, no message and no table of a store has it."""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from helpers.command import TINY, run_folders, started_from_nothing
from helpers.fault_trials import RUN, Fault, Forks, Row, with_store
from helpers.postgres import MlflowServer, free_port

SWEEPS = {
    "store": "# @package _global_\ntracking: {enabled: true, uri: '%s'}\n",
    "artifacts": "# @package _global_\ntracking: {enabled: false, artifacts: '%s'}\n",
    "text": "# @package _global_\ndescription: 'see %s'\n",
}
"""Files of studies that hold a password: in the store's address, and where it is refused."""


def traces(folder: Path, secret: str, user: str) -> list[str]:
    """The files below `folder` that hold the secret, as it is, escaped, or as a header encodes it."""
    forms = {secret, quote(secret, safe=""), quote(secret)}
    forms |= {base64.b64encode(f"{name}:{secret}".encode()).decode().rstrip("=") for name in (user, "")}
    needles = [form.encode() for form in forms]
    needles += [form.encode("utf-16-le") for form in forms]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files, f"{folder}: nothing was left behind, so nothing was searched"
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles)]


def addresses(secret: str) -> dict[str, str]:
    """The ways to write a password into an address; nobody answers there."""
    place = f"127.0.0.1:{free_port()}"
    escaped = quote(secret, safe="")
    return {
        "user and password": f"http://alice:{escaped}@{place}",
        "https": f"https://alice:{escaped}@{place}/tracking",
        "not escaped": f"http://alice:{secret}@{place}",
        "token as the user": f"http://{escaped}@{place}",
        "token in the query": f"http://{place}/?access_token={escaped}",
        "database": f"postgresql+pg8000://alice:{escaped}@{place}/mlflow",
        "database's query": f"mysql+pymysql://{place}/mlflow?user=alice&password={escaped}",
    }


def commands(folder: Path, address: str) -> dict[str, list[str]]:
    """What may leave something behind, with the address where each takes it."""
    (folder / "sweeps").mkdir()
    for name, text in SWEEPS.items():
        (folder / "sweeps" / f"{name}.yaml").write_text(text % address)
    return {
        "train": ["train", *RUN, f"tracking.uri='{address}'"],
        "study": ["train", "-m", *RUN, f"tracking.uri='{address}'", "seed=0"],
        "store in a file": ["train", "-m", *RUN, "sweeps=store", "seed=0"],
        "artifacts in a file": ["train", "-m", *RUN, "sweeps=artifacts", "seed=0"],
        "description in a file": ["train", "-m", *RUN, "sweeps=text", "seed=0"],
        "plan": ["plan", *RUN, f"tracking.uri='{address}'"],
        "sync": ["sync", f"uri={address}"],
        "report": ["report", "study=s", f"uri={address}", "--traceback"],
        "artifacts": ["train", *RUN, f"tracking.artifacts='{address}'"],
        "description": ["train", *RUN, f"description='see {address}'"],
    }


@pytest.mark.parametrize(
    "trials", [pytest.param((0, 2), id="short"), pytest.param(range(20), id="full", marks=pytest.mark.fault)]
)
def test_no_password_is_left_behind(
    forks: Forks, empty_store: Path, tmp_path: Path, trials: Sequence[int], record_property: object
) -> None:
    """In short: a run with the address as an argument, and a study with it in its file, which waits 10 s."""
    row = Row("password in the store's address", record_property)
    for number in trials:
        secret = f"{secrets.token_hex(4)}+{secrets.token_hex(4)}"
        way, address = list(addresses(secret).items())[number % 7]
        folder = with_store(tmp_path / str(number) / "project", empty_store)
        name, arguments = list(commands(folder, address).items())[number % 10]
        with row.trial(f"{name}: {way}"):
            _, text = forks.run(folder, arguments, Fault(patience_s=0.2))
            shutil.rmtree(folder / "sweeps")  # the user's own files
            assert text, "nothing was printed"
            assert traces(tmp_path / str(number), secret, "alice") == []  # what it printed lies there too
    assert row.end(len(trials)) == []


class _Guard(BaseHTTPRequestHandler):
    """Asks for alice's password, then passes the request on to an MLflow server."""

    server: _Gate

    def answer(self) -> None:
        expected = "Basic " + base64.b64encode(f"alice:{self.server.password}".encode()).decode()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if self.headers.get("Authorization") != expected:
            self.reply(401, b"who are you?")
            return
        request = urllib.request.Request(self.server.target + self.path, body, method=self.command)
        for name in ("Content-Type", "Accept"):
            if self.headers.get(name):
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self.reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self.reply(error.code, error.read())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def reply(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *values: object) -> None:
        """Prints nothing."""


class _Gate(ThreadingHTTPServer):
    target: str
    password: str


@contextmanager
def gate(target: str, password: str) -> Iterator[str]:
    """host:port of a server that lets alice through to `target`."""
    with _Gate(("127.0.0.1", 0), _Guard) as server:
        server.target, server.password = target, password
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.slow
def test_a_study_on_a_server_with_a_password(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs in processes of their own log in, and neither they, the report nor the store keep the password."""
    secret = f"{secrets.token_hex(4)}+{secrets.token_hex(4)}"
    project, behind = tmp_path / "project", with_store(tmp_path / "server", empty_store)
    project.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = MlflowServer(f"sqlite:///{behind}/mlflow.db", behind)
    server.start()

    def run(*arguments: str, check: int = 0) -> str:
        result: subprocess.CompletedProcess[str] = started_from_nothing(project, *arguments, check=check)
        with (project / "output.txt").open("a") as file:
            file.write(result.stdout + result.stderr)
        return result.stdout + result.stderr

    try:
        with gate(server.uri, secret) as place:
            address = f"http://alice:{quote(secret)}@{place}"
            study = ["train", "-m", *TINY, "study=s", "loss=bce,focal", "seed=0"]
            text = run(*study, f"tracking.uri={address}")
            assert "MLFLOW_TRACKING_PASSWORD" in text and "not reached" not in text
            assert len(run_folders(project)) == 2
            run("report", "study=s", f"uri={address}")
            text = run("sync", f"uri={address}")
            assert "2 runs" in text and place in text
            run(*study[:-1], "seed=1", f"tracking.uri={address}")
            # Without them in the address.
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
            text = run("report", "study=s", f"uri=http://{place}")
            assert "4 runs" in run("sync", f"uri=http://{place}")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password")
            run("sync", f"uri=http://{place}", check=1)
    finally:
        server.kill()
    assert (project / "runs" / "s" / "report" / "report.html").is_file()
    assert traces(tmp_path, secret, "alice") == []
