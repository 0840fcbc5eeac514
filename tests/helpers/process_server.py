"""Processes that start at once, forked from a server of the test session that has imported everything.

Importing torch and MLflow takes three seconds and more, and the suite starts some three hundred processes.
Only the importing is shared: a fork has its own folder, environment, streams, signals and exit, and the
runs that a launcher starts are forked from one fork server of the session instead of one for each launch.
Tests in which the command is to start from nothing use `started_from_nothing` of helpers.command.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
import types
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.one_picture import without_figures
from helpers.shared import made_once, session_alive

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LIMIT_S = 300
OF_IMPORTS = ("PYTEST_", "KMP_", "LD_LIBRARY_PATH", "TORCHINDUCTOR_")
"""What pytest, OpenCV, scikit-learn and torch set when they are imported: no test sets these."""
HELPERS = ("helpers.fault_child", "helpers.fuzz", "helpers.store")


class Started:
    """A process of the server, with what multiprocessing's have."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._lines = connection, connection.makefile("r")
        self.pid = int(self._lines.readline())
        self.exitcode: int | None = None

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended, or the time is over."""
        if self.exitcode is not None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            if selector.select(seconds):
                self.exitcode = int(self._lines.readline())
                self._lines.close()
                self._connection.close()

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        self.join(0)
        return self.exitcode is None

    def kill(self) -> None:
        """SIGKILL."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)


def start(function: str, *arguments: Any, folder: Path, out: str, err: str) -> Started:
    """Call `module:function` with plain arguments in a process of its own, with this one's environment.

    Args:
        folder: its working folder.
        out, err: files that its streams are appended to.
    """
    request = {
        "function": function,
        "arguments": arguments,
        "folder": str(folder),
        "streams": [out, err],
        "environment": _environment(),
    }
    connection = _connected()
    connection.sendall(json.dumps(request).encode() + b"\n")
    return Started(connection)


def _environment() -> dict[str, str]:
    """This process's, as the test that runs has set it; pytest's own variables differ in every test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_IMPORTS)}
    return kept | ENVIRONMENT


def _connected() -> socket.socket:
    address = made_once("processes", _start_server) / "socket"
    deadline = time.monotonic() + 120
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(address))
            return connection
        except OSError:
            connection.close()
            log = address.with_name("log").read_text()
            assert time.monotonic() < deadline and "Traceback" not in log, log
            time.sleep(0.05)


def _start_server(place: Path) -> None:
    environment = _environment() | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with (place / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "helpers.process_server", str(place / "socket")],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=True,
        )


# in the server


class SharedForkServer(forkserver.ForkServer):
    """A fork server that the forks of its owner use as well.

    ForkServer asks before each use whether its server lives, which only the server's parent may ask: here it
    is started once and then taken to live as long as the session.
    """

    started = False

    def ensure_running(self) -> None:
        if not self.started:
            super().ensure_running()
            self.started = True


def command(arguments: list[str], figures: bool = True) -> None:
    """`ablation ARGUMENTS`; without `figures`, a report has one small picture for each of them."""
    from ablation import cli

    if not figures:
        without_figures().start()
    signal.alarm(LIMIT_S)
    sys.argv = ["ablation", *arguments]
    cli.main()


def serve(address: str) -> None:
    """Fork a process for each request, until the session ends; answer with its id, then its exit code."""
    before = _environment()
    import ablation
    from ablation.study.launchers.local.server import PRELOADED

    every_module = [module.name for module in pkgutil.walk_packages(ablation.__path__, "ablation.")]
    for module in (*every_module, *PRELOADED, *HELPERS):
        importlib.import_module(module)
    shared = SharedForkServer()
    shared.set_forkserver_preload(PRELOADED)
    shared.ensure_running()
    # Half a million objects live as long as this process: a fork's garbage collector need not visit them,
    # which at its end alone would take more than a second.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while session_alive():
        for key, _ in selector.select(timeout=1):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                with connection.makefile("r") as lines:
                    request = json.loads(lines.readline())
                child = os.fork()
                if not child:
                    selector.close()
                    listener.close()
                    connection.close()
                    return _become(request, shared, before)
                connection.sendall(f"{child}\n".encode())
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, connection))
            else:
                child, connection = key.data
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(OSError), connection:  # nobody may be waiting for it any more
                    connection.sendall(f"{code}\n".encode())
                selector.unregister(key.fileobj)
                os.close(key.fd)
    return None


def _become(request: dict[str, Any], shared: SharedForkServer, before: dict[str, str]) -> None:
    """In a fork: what was asked for. It then ends as every interpreter does.

    Args:
        before: the server's environment before it imported what sets some of MLflow's variables.
    """
    asked, here = request["environment"], _environment()
    os.environ.clear()
    os.environ.update(asked)
    # Runs inherit the environment of their server: in another one they need a server of their own.
    if all(here.get(name) == value for name, value in asked.items()) and before.keys() <= asked.keys():
        mock.patch.object(forkserver, "connect_to_new_process", shared.connect_to_new_process).start()
        mock.patch.object(forkserver, "ensure_running", shared.ensure_running).start()
    os.chdir(request["folder"])
    for stream, path in enumerate((os.devnull, *request["streams"])):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
    sys.modules["__main__"] = types.ModuleType("__main__")  # runs need not import this file
    module, _, name = request["function"].partition(":")
    getattr(importlib.import_module(module), name)(*request["arguments"])


if __name__ == "__main__":
    if not os.fork():
        serve(sys.argv[1])
