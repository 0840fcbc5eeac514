"""What a person sees of a study while it runs: launchers tell an observer, the observer prints it.

On a terminal it is a live table of what runs now, what ended last and what is left; elsewhere, lines of
text. The table never grows beyond the screen, however many runs there are; warnings and failures are
printed above it and stay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live

from ablation.study.pace import clock, makespan_s
from ablation.study.run_status import RunStatus
from ablation.study.terminal import status_table

log = logging.getLogger(__name__)

METRIC = "val/AP"
LAST_ENDED = 5
REFRESH_S = 0.25


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


@dataclass
class Row:
    """What is known of one run.

    Attributes:
        status: as in status.STATUSES, or the run's state in small letters.
        seen: (monotonic seconds, epoch) of its first and of its last finished epoch in this launch.
        epoch_s: the last epoch's own time; what is known while there is only one.
        ended: monotonic seconds; 0 while it has not.
    """

    info: JobInfo
    status: str = "to do"
    epoch: int = 0
    value: float | None = None
    images_per_s: float | None = None
    seen: tuple[tuple[float, int], tuple[float, int]] | None = None
    epoch_s: float = 0.0
    ended: float = 0.0

    @property
    def each_s(self) -> float | None:
        """Seconds an epoch takes, evaluations and checkpoints in proportion; None before the first."""
        if self.seen is None:
            return None
        (first, at), (last, epoch) = self.seen
        return (last - first) / (epoch - at) if epoch > at else self.epoch_s

    def left_s(self, now: float) -> float | None:
        """Seconds until it ends, where it is running."""
        if self.each_s is None or self.seen is None:
            return None
        since = min(now - self.seen[1][0], self.each_s)
        return max(0.0, (self.info.epochs - self.epoch) * self.each_s - since)

    def as_run_status(self, now: float) -> RunStatus:
        """As a row of the table."""
        arm, _, seed = self.info.label.rpartition(" seed ")
        left = self.left_s(now) if self.status == "running" else None
        return RunStatus(
            arm=arm or self.info.label,
            seed=int(seed) if seed.isdecimal() else 0,
            key=str(self.info.index),
            status=self.status,
            epoch=self.epoch,
            epochs=self.info.epochs,
            value=self.value,
            images_per_s=self.images_per_s,
            left_s=left,
        )


class LiveTable:
    """An observer that keeps a table at the foot of the terminal.

    Args:
        jobs: the runs of this launch.
        stream: a terminal; standard error where it is None.
    """

    def __init__(self, jobs: Sequence[JobInfo], stream: TextIO | None = None) -> None:
        self.rows = {job.index: Row(job) for job in jobs}
        self.began = time.monotonic()
        self._drawn = 0.0
        self._slots = 1
        self.console = Console(file=stream if stream is not None else sys.stderr, highlight=False)
        self._live = Live(
            console=self.console, auto_refresh=False, redirect_stdout=False, vertical_overflow="crop"
        )
        original = sys.stderr
        self._live.start()
        # Handlers hold the stream itself, which would write into the table.
        self._moved = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is original
        ]
        self._original = original
        for handler in self._moved:
            handler.setStream(sys.stderr)
        self._draw()

    def started(self, index: int, label: str, log: Path) -> None:
        """The run is shown."""
        row = self.rows[index]
        row.status, row.seen, row.ended = "running", None, 0.0
        self._slots = max(self._slots, len(self._of("running")))
        self._draw()

    def epoch(self, index: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """Its numbers are brought up to date."""
        row, now = self.rows[index], time.monotonic()
        row.epoch = epoch
        row.value = metrics.get(METRIC, row.value)
        row.images_per_s = metrics.get("time/images_per_s", row.images_per_s)
        row.epoch_s = metrics.get("time/train_s", 0.0) + metrics.get("time/eval_s", 0.0)
        row.seen = (row.seen[0] if row.seen else (now, epoch), (now, epoch))
        self._draw(soon=False)

    def ended(self, index: int, label: str, state_or_message: str, ok: bool) -> None:
        """It moves to those that ended; why it failed is printed above the table."""
        row = self.rows[index]
        row.status = state_or_message.lower() if ok else "failed"
        row.ended = time.monotonic()
        if not ok:
            log.error("FAILED   %s: %s", label, state_or_message)
        elif state_or_message == "DIVERGED":
            log.warning("diverged %s", label)
        self._draw()

    def tick(self) -> None:
        """Times go on."""
        self._draw(soon=False)

    def close(self) -> None:
        """The table stays as it is; what is written from now on comes below."""
        self._draw()
        for handler in self._moved:
            handler.setStream(self._original)
        self._live.stop()

    def _of(self, status: str) -> list[Row]:
        return [row for row in self.rows.values() if row.status == status]

    def _draw(self, soon: bool = True) -> None:
        now = time.monotonic()
        if not soon and now - self._drawn < REFRESH_S:
            return
        self._drawn = now
        # A terminal that goes away, or one that is too small, must not end a study.
        with contextlib.suppress(Exception):
            self._live.update(self.page(self.console.height - 1, now), refresh=True)

    def page(self, height: int, now: float) -> RenderableType:
        """At most `height` lines."""
        running = self._of("running")
        ended = sorted((row for row in self.rows.values() if row.ended), key=lambda row: -row.ended)
        room = max(1, height - 7)
        rows = [*running, *ended[:LAST_ENDED]][:room]
        counts: dict[str, int] = {}
        for row in self.rows.values():
            counts[row.status] = counts.get(row.status, 0) + 1
        head = status_table.counts_line(counts, len(self.rows), len(ended))
        head.append(f"; {clock(now - self.began)} so far")
        left = self.left_s(now)
        if left is not None:
            head.append(f", about {clock(left)} left")
        return Group(status_table.table([row.as_run_status(now) for row in rows], METRIC), head)

    def left_s(self, now: float) -> float | None:
        """Seconds until the last run of this launch ends; None before the first epoch has been finished."""
        known = [row.each_s for row in self.rows.values() if row.each_s is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        durations = []
        for row in self._of("running"):
            left = row.left_s(now)
            durations.append(left if left is not None else (row.info.epochs - row.epoch) * mean)
        durations += [row.info.epochs * mean for row in self._of("to do")]
        return makespan_s(durations, self._slots) if durations else 0.0


def make_observer(jobs: Sequence[JobInfo]) -> Observer:
    """The observer of a launch. Launchers look this name up when they start: it may be replaced."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveTable(jobs)
    return PlainObserver(jobs)
