"""`ablation ui` is reachable from this machine alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.command import ROOT

from ablation import cli


def test_the_user_interface_listens_on_loopback_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"")
    monkeypatch.setattr("ablation.tracking.store.Store.prepare", lambda store: None)
    monkeypatch.setattr("ablation.cli.subprocess.run", run)
    assert cli.run(["ui"]) == 0
    (command,) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.slow
def test_what_listens_is_loopback(tmp_path: Path) -> None:
    """The real server, looked at through the kernel's table of sockets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ablation.cli", "ui", f"port={port}"],
        cwd=tmp_path,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 90
        while not (addresses := _listening(port)):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
        assert addresses == {"0100007F"}, addresses  # 127.0.0.1 as the kernel writes it
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _listening(port: int) -> set[str]:
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
