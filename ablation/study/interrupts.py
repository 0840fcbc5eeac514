"""SIGTERM and Ctrl-C while a run trains: the run ends with its state written, in its folder and in MLflow."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """A context in which SIGTERM ends a run the way Ctrl-C does, by a KeyboardInterrupt.

    The first signal interrupts the training. While the run is `ending` one signal waits, so that the
    state which is being written is written whole; `raise_late` lets it act. A further signal interrupts
    even that, for a person who does not want to wait for a server that does not answer.

    Outside the main thread, where Python has no signals, nothing is changed.

    Attributes:
        ending: what is left to do is to write what became of the run.
    """

    def __init__(self) -> None:
        self.ending = False
        self._late = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def raise_late(self) -> None:
        """Act on a signal that came while the run was ending."""
        if self._late:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.ending and not self._late:
            self._late = True
            return
        self.ending = True
        raise KeyboardInterrupt
