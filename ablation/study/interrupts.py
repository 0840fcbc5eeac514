"""SIGTERM and Ctrl-C while a run trains: the run ends with its state written, in its folder and in MLflow."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """A context in which SIGTERM ends a run the way Ctrl-C does, by a KeyboardInterrupt.

    The first signal interrupts the training. Inside `held`, and once `end` has been called, one
    signal waits: an exception in the middle of a transaction would leave the database locked, and
    then nothing could be written about the run any more. A further signal interrupts even that, for
    a person who does not want to wait.

    Outside the main thread, where Python has no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._held = self._ending = self._late = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            # A signal that is ignored (a job in the background of a script, nohup) stays ignored.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._interrupt) for number in heard}
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits until this is over."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.raise_late()

    def end(self) -> None:
        """What is left to do is to write what became of the run: from now on a signal waits."""
        self._ending = True

    def raise_late(self) -> None:
        """Act on a signal that had to wait."""
        if self._late:
            self._ending, self._late = True, False
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if (self._held or self._ending) and not self._late:
            self._late = True
            return
        self._ending, self._late = True, False
        raise KeyboardInterrupt
