"""The body of a run's process: it trains one run, writes its log and listens to the launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ablation.errors import AblationError, OutOfMemory, one_line
from ablation.study.execute import execute, prepare, store_of
from ablation.study.launchers.local.memory import is_out_of_memory

log = logging.getLogger(__name__)

LAUNCHER_GONE = "its launcher was gone; launch it again to go on from the last checkpoint"


class _LauncherListener:
    """Listens to the launcher: to a request to stop, and to its silence.

    The launcher alone holds the other end of the pipe, so the kernel closes it whatever ends the
    launcher, and a thread that reads from it notices at once, even in the middle of an epoch.

    Attributes:
        reason: why the run was asked to stop; "" while nobody has.
    """

    def __init__(self, pipe: Connection, grace_s: float) -> None:
        self.reason = ""
        self._pipe, self._grace_s = pipe, grace_s
        threading.Thread(target=self._listen, name="launcher", daemon=True).start()

    def _listen(self) -> None:
        try:
            self.reason = str(self._pipe.recv())
        except (EOFError, OSError):
            self.reason = LAUNCHER_GONE
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace_s)
        # It did not end: perhaps it hangs where no signal is heard. Its helpers go with it.
        os.killpg(0, signal.SIGKILL)


def run_child(
    content: str,
    overrides: list[str],
    pipe: Connection,
    path: str,
    grace_s: float,
    environment: dict[str, str],
) -> None:
    """Train one run and report to the launcher through `pipe`.

    Sends ("epoch", (epoch, epochs, metrics)) and at the end one of ("state", STATE),
    ("error", line) and ("memory", line). A process that ends without the latter was killed.

    Args:
        content: the composed configuration, as YAML.
        path: of the log, which is appended to.
        grace_s: what the run has, once asked to stop, until it is killed.
        environment: the launcher's; the server that this process was forked from started before a password
            in the study's file was taken into it.
    """
    os.environ.update(environment)
    os.setsid()  # a Ctrl-C in the terminal reaches the launcher alone, which then ends the runs
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    signal.signal(signal.SIGTERM, _interrupt)
    listener: _LauncherListener | None = None

    def send(kind: str, value: Any) -> None:
        with contextlib.suppress(OSError):  # the launcher is gone: the listener handles that
            pipe.send((kind, value))

    try:
        listener = reasons = _LauncherListener(pipe, grace_s)
        run = prepare(cast(DictConfig, OmegaConf.create(content)), overrides)

        def progress(epoch: int, metrics: dict[str, float]) -> None:
            send("epoch", (epoch, run.config.train.epochs, metrics))

        output = Path(path)
        send("state", execute(run, store_of(run.config), progress, lambda: reasons.reason, output))
    except AblationError as error:
        log.error("%s", error)
        send("memory" if isinstance(error, OutOfMemory) else "error", str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        reason = (listener.reason if listener is not None else "") or "interrupted"
        log.error("stopped: %s", reason)
        send("error", reason)
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        kind = "memory" if is_out_of_memory(error) else "error"
        send(kind, one_line(f"{type(error).__name__}: {error}", 300))
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
