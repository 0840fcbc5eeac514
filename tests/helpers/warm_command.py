"""`ablation ...` as a process of its own, forked from one that has imported everything already.

Importing torch and MLflow takes three seconds and more, and the suite runs the command some two hundred
times. Only the importing is shared: a fork has its own folder, environment, streams, signals and exit, and
the runs that a launcher starts are forked from one server of the suite instead of one for each launch.
Tests in which the command is to start from nothing use `started_from_nothing` of helpers.command.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LIMIT_S = 300


class SharedForkServer(forkserver.ForkServer):
    """A fork server that the forks of its owner use as well.

    ForkServer asks before each use whether its server lives, which only the server's parent may ask: here it
    is started once and then taken to live as long as the suite.
    """

    started = False

    def ensure_running(self) -> None:
        if not self.started:
            super().ensure_running()
            self.started = True


def serve() -> None:
    """Fork the command for each line of stdin; answer with its exit code, negative for a signal."""
    server_environment = dict(os.environ)

    import ablation
    from ablation import cli
    from ablation.study.launchers.local.pool import PRELOADED

    every_module = [module.name for module in pkgutil.walk_packages(ablation.__path__, "ablation.")]
    for module in (*every_module, *PRELOADED):
        importlib.import_module(module)
    shared = SharedForkServer()
    shared.set_forkserver_preload(PRELOADED)
    shared.ensure_running()
    # Half a million objects live as long as this process: a fork's garbage collector need not visit them,
    # which at its end alone would take more than a second.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.environ.clear()
        os.environ.update(request["environment"])
        if request["environment"] == server_environment:
            # Runs inherit the environment of their server: in another one they need a server of their own.
            mock.patch.object(forkserver, "connect_to_new_process", shared.connect_to_new_process).start()
        os.chdir(request["folder"])
        for stream, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
            os.dup2(os.open(path, os.O_RDWR), stream)
        signal.alarm(LIMIT_S)
        sys.argv = ["ablation", *request["arguments"]]
        cli.main()
        return  # to end as every interpreter does, with what is registered for its end


class WarmCommand:
    """The process to fork from; it ends with this one, at the end of its stdin."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment(),
            cwd=ROOT,
        )

    @staticmethod
    def _environment() -> dict[str, str]:
        """This process's, as the test that runs has set it; pytest's own variable differs in every test."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return environment | ENVIRONMENT

    def run(self, folder: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """The command with these arguments in `folder`, and what it wrote."""
        assert self._server.stdin and self._server.stdout
        with tempfile.NamedTemporaryFile("r+") as out, tempfile.NamedTemporaryFile("r+") as err:
            request = {
                "folder": str(folder),
                "arguments": arguments,
                "environment": self._environment(),
                "stdout": out.name,
                "stderr": err.name,
            }
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(["ablation", *arguments], code, out.read(), err.read())


if __name__ == "__main__":
    serve()
