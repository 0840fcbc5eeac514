"""The process of a command: a group of its own that never outlives the process that started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ablation.errors import AblationError, UsageError

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH"),
)
"""Variables that every command gets, where they are set; all others have to be named."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DEVICES = "CUDA_VISIBLE_DEVICES"
GRACE_S = 10.0
"""Between a command's being asked to end and its being killed."""

_MARK = "ABLATION_COMMAND"
_GUARD = f"""
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.read(0, 1)
mark = b"{_MARK}=" + sys.argv[1].encode()
for attempt in range(5):
    killed = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark in open("/proc/" + name + "/environ", "rb").read().split(b"\\0"):
                os.kill(int(name), signal.SIGKILL)
                killed += 1
        except OSError:
            pass
    if not killed:
        break
os.killpg(0, signal.SIGKILL)
"""
"""Waits until its standard input is closed, which the kernel does however the process there ends.

Then it kills every process with the command's mark in its environment, so also one that has left the group
(workers of torchrun do), and its own group.
"""


def environment_of(
    named: Mapping[str, str | None], device: str, threads: int | None, launch: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a command.

    Args:
        named: variable -> value; None: as in the environment of the launch, if it is set there.
        device: as train.device; cuda:N becomes the N-th of the visible GPUs, cpu none. Otherwise all are.
        threads: CPU threads; None: as in the environment of the launch.
        launch: environment of the launch.
    """
    environment = {name: launch[name] for name in (*PASSED, DEVICES, *THREADS) if name in launch}
    environment["PYTHONUNBUFFERED"] = "1"  # else a log stays empty for minutes
    if threads is not None:
        environment |= dict.fromkeys(THREADS, str(threads))
    if device == "cpu":
        environment[DEVICES] = ""
    elif device.startswith("cuda:"):
        visible = launch.get(DEVICES, "").split(",") if launch.get(DEVICES) else []
        index = int(device.partition(":")[2])
        environment[DEVICES] = visible[index] if index < len(visible) else str(index)
    for name, value in named.items():
        passed = launch.get(name) if value is None else value
        if passed is not None:
            environment[name] = passed
    return environment


def require_program(word: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Refuse a command whose program is not there.

    Raises:
        UsageError: it is neither on PATH nor below the folder.
    """
    in_folder = "/" in word and os.access(folder / word, os.X_OK)
    if not in_folder and ("/" in word or shutil.which(word, path=environment.get("PATH")) is None):
        where = f"in {folder}" if "/" in word else "on PATH"
        raise UsageError(f"trainer.command[0]: {word} is no program {where}; give its path")


class CommandProcess:
    """A started command, in a process group with its guard. Leaving the context ends all that it started.

    Args:
        log: what the command prints is appended to it.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        reading, self._pipe = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, mark],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        finally:
            os.close(reading)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    list(words),
                    cwd=folder,
                    env={**environment, _MARK: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=self._guard.pid,
                )
        except OSError as error:
            self._kill()
            raise AblationError(f"trainer.command: {words[0]} cannot be started: {error.strerror}") from None
        except BaseException:
            self._kill()
            raise

    def __enter__(self) -> CommandProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What still runs is asked to end, and killed after GRACE_S; so is what the command left behind."""
        try:
            assert self._process is not None
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._guard.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_S)
        finally:
            self._kill()

    def wait(self, seconds: float) -> int | None:
        """The exit code, negative for a signal; None where it still runs after that time."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _kill(self) -> None:
        """Have the guard kill everything; the group is killed from here too, in case the guard is gone."""
        os.close(self._pipe)
        deadline = time.monotonic() + GRACE_S
        waiting = (
            os.WEXITED | os.WNOWAIT | os.WNOHANG
        )  # a guard that is not collected keeps its group's number
        while os.waitid(os.P_PID, self._guard.pid, waiting) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal.SIGKILL)
        self._guard.wait()
        if self._process is not None:
            self._process.wait()


def last_lines(log: Path, count: int, start: int = 0) -> list[str]:
    """The last lines with text of a log, from a position on."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 20_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]


def exit_text(code: int) -> str:
    """exited with code 3; was killed by SIGKILL."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
