"""A PostgreSQL and an MLflow server on it, for a test: loopback only, ended by their process ids."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def tool(name: str) -> str:
    """A program of PostgreSQL; skips the test where it is not installed."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    for place in places:
        if (place / name).exists():
            return str(place / name)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed (Debian: postgresql)")
    return found


def as_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as postgres or as nobody."""
    if os.getuid() != 0:
        return command
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    group = str(pwd.getpwnam(name).pw_gid)
    return ["setpriv", f"--reuid={name}", f"--regid={group}", "--clear-groups", *command]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A new database in `folder`; yields its URI for SQLAlchemy."""
    initdb, server = tool("initdb"), tool("postgres")
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        for part in (folder, *folder.parents):  # pytest's folders are closed to others
            if part == Path("/tmp"):
                break
            part.chmod(part.stat().st_mode | 0o011)
        user = as_user([])[1].removeprefix("--reuid=")
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    environment = {**os.environ, "LC_ALL": "C"}
    subprocess.run(
        as_user([initdb, "-D", str(data), "-U", "ablation", "-A", "trust", "-E", "UTF8", "--no-sync"]),
        check=True, capture_output=True, env=environment, cwd="/",
    )  # fmt: skip
    with (folder.parent / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            as_user([server, "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1",
                     "-F", "-c", "max_connections=50"]),
            stdout=log, stderr=log, env=environment, cwd="/",
        )  # fmt: skip
    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), process)
        _until(lambda: _create_database(port), process)
        yield f"postgresql+pg8000://ablation@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown
        process.wait(30)


def _create_database(port: int) -> None:
    import pg8000.native

    connection = pg8000.native.Connection("ablation", host="127.0.0.1", port=port, database="postgres")
    connection.run("CREATE DATABASE mlflow")
    connection.close()


class MlflowServer:
    """`mlflow server`, to be started, killed and started again on the same port."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database, self.folder, self.port = database, folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "mlflow.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.database,
                 "--artifacts-destination", str(self.folder / "artifacts"), "--serve-artifacts",
                 "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
                stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True,
            )  # fmt: skip
        self._process = process
        _until(lambda: urllib.request.urlopen(f"{self.uri}/health", timeout=2).close(), process)

    def kill(self) -> None:
        """All of its processes at once, without warning."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


def _until(works: object, process: subprocess.Popen[bytes], limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            works()  # type: ignore[operator]
            return
        except Exception:
            assert process.poll() is None, f"{process.args} ended with {process.returncode}"
            assert time.monotonic() < end, f"{process.args} does not answer"
            time.sleep(0.2)
