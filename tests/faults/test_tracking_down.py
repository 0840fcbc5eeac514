"""A tracking server that goes away in the middle of a run: for ten seconds, and for good."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from helpers.fault_trials import (
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    ended,
    holds_in_mlflow,
    lines,
    numbers,
    random,
    the_run,
    with_store,
)

LONG = [word for word in RUN if not word.startswith("train.epochs")] + ["train.epochs=16"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A real `mlflow server` on loopback, on a database that is there already."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--default-artifact-root", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | quiet,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            assert time.monotonic() < until and self.process.poll() is None, "the server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9, with everything that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def test_a_server_that_is_never_there(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path
) -> None:
    """The run is the one that it would have been; a sync into another store has every point once."""
    folder = with_store(tmp_path / "run", empty_store)
    nowhere = f"tracking.uri=http://127.0.0.1:{free_port()}"
    code, text = forks.run(folder, ["train", *RUN, nowhere], Fault(patience_s=0.5))
    assert code == 0, text
    assert "not reached" in text and "Traceback" not in text, text
    run = reference.holds_at_the_end(folder, 0, [])
    for _ in range(2):
        code, text = forks.run(folder, ["sync"])
        assert code == 0, text
    holds_in_mlflow(folder / "mlflow.db", run)


@pytest.mark.fault
def test_tracking_down(forks: Forks, empty_store: Path, tmp_path: Path, record_property: object) -> None:
    """Training goes on; after `ablation sync` no point is lost or doubled."""
    rows = {
        True: Row("tracking down for good", record_property),
        False: Row("tracking down 10 s", record_property),
    }
    generator = random("tracking down")
    alone = with_store(tmp_path / "alone", empty_store)
    code, text = forks.run(alone, ["train", *LONG, "tracking=none"])
    assert code == 0, text
    undisturbed = numbers(the_run(alone))
    server = Server(with_store(tmp_path / "server", empty_store))
    server.start()
    try:
        for number in range(10):
            for_good, epoch = bool(number % 2), int(generator.integers(1, 5))
            with rows[for_good].trial(f"after epoch {epoch}"):
                folder = tmp_path / str(number)
                folder.mkdir()
                tracked = [f"tracking.uri={server.uri}", f"study=s{number}"]
                process = forks.start(folder, ["train", *LONG, *tracked], Fault(epoch_s=1.0))
                while not (process.exitcode is not None or _epochs(folder) >= epoch):
                    time.sleep(0.05)
                server.kill()
                if not for_good:
                    time.sleep(10)
                    assert process.is_alive(), "the run was over before the server came back"
                    server.start()
                assert ended(process) == 0
                run = the_run(folder)
                assert (run / "DONE").read_text() == "FINISHED\n"
                assert numbers(run) == undisturbed, "the training was touched"
                if for_good:
                    server.start()
                for _ in range(2):
                    code, text = forks.run(folder, ["sync", f"uri={server.uri}"])
                    assert code == 0, text
                holds_in_mlflow(server.folder / "mlflow.db", run)
            if server.process is None:
                server.start()
    finally:
        server.kill()
    for row in rows.values():
        assert row.end(5) == []


def _epochs(folder: Path) -> int:
    return sum(len(lines(path)) for path in (folder / "runs").glob("*/*/*"))
