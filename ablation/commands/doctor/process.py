"""Each section in a process of its own: a crash, a hang or a lack of memory costs that section alone."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection

from ablation.commands.doctor.lines import Line, Section, Settings
from ablation.errors import one_line

PRELOADED = ["ablation.commands.doctor.training"]


def run_section(section: Section, settings: Settings, limit_s: float) -> Iterator[Line]:
    """The section's lines as they come; the last one says what ended it, where it did not end by itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(section, settings, sender))
    process.start()
    sender.close()
    deadline = time.monotonic() + limit_s
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            try:
                yield receiver.recv()
            except EOFError:
                process.join(10)
                if process.exitcode:
                    yield _died(section.name, process.exitcode)
                return
        yield Line(
            section.name,
            "failed",
            f"not done after {limit_s:.0f} s, which is its limit",
            "end other work on this machine and look again; the lines above it hold",
        )
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join(10)


def _died(name: str, code: int) -> Line:
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    remedy = "free memory and look again; `dmesg` says whether the kernel ended it for want of memory"
    return Line(name, "failed", f"its process ended {how}", remedy)


def _work(section: Section, settings: Settings, sender: Connection) -> None:
    os.setsid()  # so that whatever it starts can be ended with it
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        for line in section.look(settings):
            sender.send(line)
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}", 300)
        sender.send(Line(section.name, "failed", text, remedy_for(error)))


def remedy_for(error: BaseException) -> str:
    """What to do about an error that no line of its own was written for."""
    text = str(error).lower()
    if "out of memory" in text or isinstance(error, MemoryError):
        return "free memory (nvidia-smi lists what uses a GPU), then look again"
    if isinstance(error, ImportError):
        return "install what is missing: pip install -c constraints.txt yolov4-focal-ablation"
    if "cuda" in text or "cudnn" in text or "cublas" in text:
        return "install the torch build that the driver supports (pytorch.org), or use device=cpu"
    return "send this line to the project's issues together with `ablation doctor json=true`"
