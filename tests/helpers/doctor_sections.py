"""Sections that go wrong; in a module of their own, since another process imports them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from ablation.commands.doctor.lines import Line, Settings


def hangs(settings: Settings) -> Iterator[Line]:
    """Starts a process of its own, says its number, and never ends."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Line("child", "ok", "started", values={"pid": child.pid})
    time.sleep(600)


def dies(settings: Settings) -> Iterator[Line]:
    """Is killed after its first line, as for want of memory."""
    yield Line("first", "ok", "said")
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    yield Line("second", "ok", "never said")


def raises(settings: Settings) -> Iterator[Line]:
    """Raises what torch raises for want of a GPU's memory."""
    yield Line("first", "ok", "said")
    raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
