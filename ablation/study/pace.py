"""How fast a run went, from its own lines, and how long the rest of it will take."""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pace:
    """Medians over a run's epochs, which no interruption can move.

    Attributes:
        train_s: training of one epoch.
        eval_s: one evaluation; 0 where there was none yet.
        other_s: what else an epoch takes: checkpoint, logging.
    """

    train_s: float
    eval_s: float
    other_s: float

    def left_s(self, epoch: int, epochs: int, eval_every: int) -> float:
        """Seconds from the end of `epoch` (0: from the start) to the end of the run."""
        evaluations = epochs // eval_every - epoch // eval_every + (epochs % eval_every > 0)
        return (epochs - epoch) * (self.train_s + self.other_s) + evaluations * self.eval_s


def pace_of(lines: Sequence[dict[str, Any]]) -> Pace | None:
    """The pace of a run from its metrics.jsonl, without the first epoch, which warms up; None: no line.

    Args:
        lines: {"epoch", "time_ms", "metrics"}, as RunFolder.metrics() has them.
    """
    steady = lines[1:] if len(lines) > 1 else lines
    train = [line["metrics"]["time/train_s"] for line in steady if "time/train_s" in line["metrics"]]
    if not train:
        return None
    evaluations = [line["metrics"]["time/eval_s"] for line in lines if "time/eval_s" in line["metrics"]]
    other = []
    for previous, line in itertools.pairwise(lines):
        known = line["metrics"].get("time/train_s", 0) + line["metrics"].get("time/eval_s", 0)
        if line["epoch"] == previous["epoch"] + 1:
            other.append(max(0.0, (line["time_ms"] - previous["time_ms"]) / 1000 - known))
    return Pace(
        statistics.median(train),
        statistics.median(evaluations) if evaluations else 0.0,
        statistics.median(other) if other else 0.0,
    )


def makespan_s(durations_s: Iterable[float], slots: int) -> float:
    """When the last of these jobs ends, each started in order as soon as one of `slots` is free."""
    free = [0.0] * slots
    for duration in durations_s:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def clock(seconds: float) -> str:
    """A duration as a person writes it: 48 s, 5 min, 2 h 05 min, 3 d 4 h."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
