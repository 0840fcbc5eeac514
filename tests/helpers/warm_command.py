"""`ablation ...` as a process of its own, forked from one that has imported everything already.

Importing torch and MLflow takes three seconds and more, and the suite runs the command some two hundred
times. Only the importing is shared: a fork has its own folder, environment, streams, signals and exit, and
the runs that a launcher starts are forked from one server of the suite instead of one for each launch.
Tests in which the command is to start from nothing use `started_from_nothing` of helpers.command.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LIMIT_S = 300


def serve() -> None:
    """Fork the command for each line of stdin; answer with its exit code, negative for a signal."""
    own = dict(os.environ)

    from ablation import cli
    from ablation.study.launchers.local.pool import PRELOADED

    for module in ("ablation.study.app", *PRELOADED):
        importlib.import_module(module)
    multiprocessing.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.environ.clear()
        os.environ.update(asked["environment"])
        if asked["environment"] == own:
            # It runs, but is no child of this fork, which could not ask for its state.
            forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        else:
            vars(forkserver._forkserver).update(vars(forkserver.ForkServer()))
        os.chdir(asked["folder"])
        for stream, path in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
            os.dup2(os.open(path, os.O_RDWR), stream)
        signal.alarm(LIMIT_S)
        sys.argv = ["ablation", *asked["arguments"]]
        cli.main()
        return  # to end as every interpreter does, with what is registered for its end


class WarmCommand:
    """The process to fork from; it ends with this one, at the end of its stdin."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=self._environment(), cwd=ROOT,
        )  # fmt: skip

    @staticmethod
    def _environment() -> dict[str, str]:
        """This process's, as the test that runs has set it; pytest's own variable differs in every test."""
        mine = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return mine | ENVIRONMENT

    def run(self, folder: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """The command with these arguments in `folder`, and what it wrote."""
        assert self._server.stdin and self._server.stdout
        with tempfile.NamedTemporaryFile("r+") as out, tempfile.NamedTemporaryFile("r+") as err:
            asked = {
                "folder": str(folder), "arguments": arguments, "environment": self._environment(),
                "stdout": out.name, "stderr": err.name,
            }  # fmt: skip
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(["ablation", *arguments], code, out.read(), err.read())


if __name__ == "__main__":
    serve()
