"""What a person sees of a study while it runs: launchers tell an observer, the observer shows it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobInfo:
    """A run that is going to be launched.

    Attributes:
        index: its place in the launch, from 0.
        label: as a person names it: arm and seed.
        epochs: how long it will train.
    """

    index: int
    label: str
    epochs: int


class Observer(Protocol):
    """Told by a launcher what happens; may take its time to show it, but must never raise."""

    def started(self, index: int, label: str, log: Path) -> None:
        """A run began, or begins again after it ran out of memory; `log` is what it writes to."""

    def epoch(self, index: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """A run has finished so many of its epochs; the last one's metrics."""

    def ended(self, index: int, label: str, state_or_message: str, ok: bool) -> None:
        """A run ended: its state where it is ok, else what went wrong, with the path of its log."""

    def tick(self) -> None:
        """Called at least once a second while the launcher waits."""

    def close(self) -> None:
        """Nothing more will come."""


class PlainObserver:
    """Lines of text: one for a start, an evaluation, an end.

    Args:
        jobs: the runs of this launch.
    """

    def __init__(self, jobs: Sequence[JobInfo]) -> None:
        self._labels = {job.index: job.label for job in jobs}
        self._total, self._done = len(jobs), 0

    def started(self, index: int, label: str, log: Path) -> None:
        """One line."""
        _say(logging.INFO, f"started  {label}")

    def epoch(self, index: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """One line where the epoch was evaluated."""
        if "val/AP" not in metrics:
            return
        numbers = f"val/AP {metrics['val/AP']:.3f}"
        if "val/AP50" in metrics:
            numbers += f"  val/AP50 {metrics['val/AP50']:.3f}"
        if "time/images_per_s" in metrics:
            numbers += f"  {metrics['time/images_per_s']:.0f} images/s"
        _say(
            logging.INFO,
            f"[{self._done}/{self._total} done] {self._labels[index]}: epoch {epoch}/{epochs}  {numbers}",
        )

    def ended(self, index: int, label: str, state_or_message: str, ok: bool) -> None:
        """One line; an error where it failed."""
        self._done += 1
        if ok:
            _say(logging.INFO, f"finished {label}: {state_or_message}")
        else:
            _say(logging.ERROR, f"FAILED   {label}: {state_or_message}")

    def tick(self) -> None:
        """Lines need no refreshing."""

    def close(self) -> None:
        """Nothing to clean up."""


def _say(level: int, text: str) -> None:
    log.log(level, "%s", text)


def make_observer(jobs: Sequence[JobInfo]) -> Observer:
    """The observer of a launch. Launchers look this name up when they start: it may be replaced."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from ablation.study.terminal.live import LiveTable  # which builds on this file

        return LiveTable(jobs)
    return PlainObserver(jobs)
