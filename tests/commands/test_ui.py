"""`ablation ui`: ends with all its children, and says who can reach it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import ROOT

from ablation import cli
from ablation.commands import ui
from ablation.errors import UsageError

SERVER = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pids: list[int]) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("child", ["import time; time.sleep(60)", DEAF], ids=["obedient", "ignores SIGTERM"])
def test_a_signal_ends_the_server_and_its_children(number: signal.Signals, child: str) -> None:
    program = (
        "import os, sys; from ablation.commands import ui; ui.GRACE_S = 1.0\n"
        f"sys.exit(ui.serve([sys.executable, '-c', {SERVER.format(child=child)!r}], dict(os.environ)))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2 and all(is_alive(pid) for pid in pids)
        os.kill(process.pid, number)
        assert process.wait(timeout=20) == 0
        assert wait_until_dead(pids)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would have been started."""
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ablation.tracking.store.Store.prepare", lambda store: None)
    monkeypatch.setattr(ui, "serve", lambda command, environment: commands.append(command) or 0)
    return commands


def test_the_user_interface_listens_on_loopback_alone(
    served: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ui"]) == 0
    assert served[0][served[0].index("--host") + 1] == "127.0.0.1" and capsys.readouterr().err == ""


def test_an_open_host_is_warned_about(served: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ui", "host=0.0.0.0"]) == 0
    warning = capsys.readouterr().err
    assert served[0][served[0].index("--host") + 1] == "0.0.0.0"
    assert "host=0.0.0.0" in warning and "password" in warning and warning.count("\n") == 1


def test_a_server_has_a_user_interface_of_its_own(served: list[list[str]]) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:5000.*open this address"):
        cli.run(["ui", "uri=http://127.0.0.1:5000"])
    assert served == []


@pytest.mark.slow
def test_the_real_server_listens_on_loopback_and_ends_with_its_workers(tmp_path: Path) -> None:
    """Looked at through the kernel's table of sockets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "ablation.cli", "ui", f"port={port}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet) as process:
        until = time.monotonic() + 90
        while not (addresses := _listening(port)):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
        assert addresses == {"0100007F"}, addresses  # 127.0.0.1 as the kernel writes it
        workers = descendants(process.pid)
        process.terminate()
        assert process.wait(timeout=20) == 0
        assert len(workers) >= 2 and wait_until_dead(workers)


def _listening(port: int) -> set[str]:
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def descendants(pid: int) -> list[int]:
    """Children, their children and so on."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    below = [child for child, parent in parents.items() if parent == pid]
    return below + [lower for child in below for lower in descendants(child)]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.0.1.1", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.1.2.3", False), ("example.org", False)],
)  # fmt: skip
def test_only_loopback_is_private(host: str, loopback: bool) -> None:
    assert ui.is_loopback(host) is loopback
