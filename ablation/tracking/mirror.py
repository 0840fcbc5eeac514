"""Copies a run's folder into MLflow while it trains, in a way that never makes the training wait.

The folder is the truth and also the queue: what has not been copied yet lies in metrics.jsonl, so
nothing has to be kept in memory, nothing is lost when the process ends, and a point that is sent
twice is one point (it is identified by metric, epoch, time and value).

A store in a local file is written at once, in the training's own thread. A server is written by a
thread of its own: a host name that does not resolve, a host that drops packets and a server that
accepts and never answers each hold a caller for seconds, and no training step may wait for that.
After a failure that thread tries again after 1, 2, 4, ... up to 60 seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ablation.errors import one_line
from ablation.tracking.run_folder import NewMetrics, RunFolder

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long the end of a run waits for a server, in seconds; what is missing then is left to a replay."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0

STATUS = {
    "RUNNING": "RUNNING",
    "FINISHED": "FINISHED",
    "KILLED": "KILLED",
    "STOPPED": "KILLED",
    "PRUNED": "KILLED",
}
"""A run's state -> MLflow's status; every other state is FAILED."""


class TrackingStore(Protocol):
    """What a mirror needs of a tracking store, such as store.Store. Every method may raise anything."""

    @property
    def uri(self) -> str:
        """Its address, for messages."""

    @property
    def local(self) -> bool:
        """Whether writing can only be quick or fail: a file on this machine."""

    def open_run(self, identity: dict[str, Any], folder: Path, started_ms: int, tags: dict[str, str]) -> str:
        """The id of the folder's run, which is created where there is none."""

    def set_running(self, run: str) -> None:
        """Mark the run as going on."""

    def epochs_logged(self, run: str, metric: str) -> set[int]:
        """The epochs at which the run has a point of `metric`."""

    def log_points(self, run: str, line: dict[str, Any]) -> None:
        """Log one line of metrics.jsonl in one batch."""

    def log_file(self, run: str, path: Path, folder: str | None) -> None:
        """Attach a file."""

    def end_run(self, run: str, tags: dict[str, str], status: str, ended_ms: int | None) -> None:
        """Set the final state."""

    def errors(self) -> Any:
        """A context manager that turns any failure into a StoreError of one line."""


class Mirror:
    """Copies one run's folder into a tracking store. A lost server is a warning and never stops a training.

    Args:
        store: None: do nothing.
        folder: the run's.
        strict: copy at once and raise StoreError instead of warning (for a replay, whose only task
            this is).
    """

    def __init__(self, store: TrackingStore | None, folder: RunFolder, strict: bool = False) -> None:
        self.store = store
        self.folder = folder
        self.strict = strict
        self._new = NewMetrics(folder)
        self._run: str | None = None
        self._former: str | None = None
        self._known: dict[str, set[int]] = {}
        self._error = ""
        background = store is not None and not store.local and not strict
        self._retries = RetryQueue(self._attempt) if background else None

    def start(self) -> None:
        """Create the MLflow run, or find the one that this folder already has."""
        self._do(self._start)

    def push(self) -> None:
        """Log every epoch that has not been logged, one batch each."""
        self._do(self._push)

    def finish(self, artifacts: list[Path]) -> None:
        """Log what is missing, the artifacts, and the final state.

        On a server this waits PATIENCE_S at most, then warns that a replay has to do the rest.
        """
        # Apart, so that a file which cannot be read does not leave the run RUNNING for ever.
        self._do(lambda store: self._content(store, artifacts))
        self._do(self._state)
        if self._retries is not None and not self._retries.close(PATIENCE_S):
            uri = self.store.uri if self.store else ""
            log.warning(
                "MLflow (%s) lacks a part of %s: %s; the folder has it all, `ablation sync` copies the rest",
                *(uri, self.folder.path, self._error or "no answer yet"),
            )

    # scheduling

    @property
    def pending(self) -> int:
        """How many pieces of work wait for the store to answer."""
        return 0 if self._retries is None else len(self._retries)

    def _do(self, work: Callable[[TrackingStore], None]) -> None:
        if self.store is None:
            return
        if self._retries is not None:
            self._retries.put(work)
        elif self.strict:
            with self.store.errors():
                work(self.store)
        else:
            self._attempt(work)

    def _attempt(self, work: Callable[[TrackingStore], None], quiet: bool = False) -> bool:
        """Try a piece of work; a failure is a warning. Returns whether it was done."""
        assert self.store is not None
        try:
            work(self.store)
            return True
        except Exception as error:
            # The run may have been removed meanwhile: look for it again, and tell by its id.
            self._former, self._run = self._run or self._former, None
            self._error = one_line(error, 200)
            log.log(
                logging.DEBUG if quiet else logging.WARNING,
                "MLflow (%s) not reached: %s; the run goes on, its folder has everything",
                *(self.store.uri, self._error),
            )
            return False

    # content

    def _open(self, store: TrackingStore) -> str:
        if self._run is None:
            state = self.folder.read_json("state.json")
            started = state.get("started_ms") or round(time.time() * 1000)
            identity = self.folder.read_json("run.json")
            self._run = store.open_run(identity, self.folder.path.absolute(), started, self._tags())
            if self._run != self._former:
                self._new, self._known = NewMetrics(self.folder), {}
        return self._run

    def _start(self, store: TrackingStore) -> None:
        run = self._open(store)
        if self.folder.state == "RUNNING":  # by the time that a server is back it may have ended
            store.set_running(run)

    def _push(self, store: TrackingStore) -> None:
        run = self._open(store)
        for line in self._new.lines(self.folder.settled_epoch):
            # A line of training begins with another metric than one of a later evaluation on test.
            first = next(iter(line["metrics"]))
            if first not in self._known:
                # An epoch whose checkpoint was damaged is trained again, at another time: it is no new point.
                self._known[first] = store.epochs_logged(run, first)
            if line["epoch"] not in self._known[first]:
                store.log_points(run, line)
                self._known[first].add(line["epoch"])

    def _content(self, store: TrackingStore, artifacts: list[Path]) -> None:
        self._push(store)
        for path in artifacts:
            folder = path.parent.name if path.parent != self.folder.path else None
            store.log_file(self._open(store), path, folder)

    def _state(self, store: TrackingStore) -> None:
        ended = self.folder.read_json("state.json").get("ended_ms")
        store.end_run(self._open(store), self._tags(), STATUS.get(self.folder.state, "FAILED"), ended)

    def _tags(self) -> dict[str, str]:
        identity = self.folder.read_json("run.json")
        tags = {key: str(identity[key]) for key in ("study", "arm", "seed", "key")}
        tags |= {"kind": "run", "state": self.folder.state, "reason": self.folder.reason[:500]}
        tags |= {"folder": str(self.folder.path.absolute()), "command": identity["command"]}
        tags |= {f"code.{key}": str(value) for key, value in identity["code"].items()}
        if "git_commit" in identity["code"]:
            tags["mlflow.source.git.commit"] = identity["code"]["git_commit"]
        tags |= {"mlflow.source.name": "ablation train", "mlflow.source.type": "LOCAL"}
        for name, value in self.folder.read_json("notes.json").items():
            if isinstance(value, dict):
                tags |= {f"{name}.{key}": str(item) for key, item in value.items()}
            else:
                tags[name] = str(value)
        return tags


class RetryQueue:
    """A thread that does what was put in, each piece again and again until it succeeds.

    Pieces must be idempotent, and their order must not matter: one that fails goes to the end, so
    that it does not block the others. A piece that is waiting already is not entered twice, so
    the queue stays as short as there are kinds of work, however long the other side is away.

    Args:
        attempt: does a piece of work and says whether it succeeded; `quiet` where its failure is
            no news.
    """

    def __init__(self, attempt: Callable[..., bool]) -> None:
        self._attempt = attempt
        self._waiting: list[Callable[[Any], None]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._deadline: float | None = None

    def put(self, work: Callable[[Any], None]) -> None:
        """Have `work` done; returns at once."""
        with self._changed:
            if work not in self._waiting[1:]:  # the first may be under way: it may have read too early
                self._waiting.append(work)
            if self._thread is None:
                # A daemon: a server that never answers must not keep the process from ending.
                self._thread = threading.Thread(target=self._deliver, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def __len__(self) -> int:
        """Pieces of work that wait or are being done."""
        return len(self._waiting)

    def close(self, patience_s: float) -> bool:
        """Wait until everything is done, at most `patience_s` seconds; returns whether it is."""
        with self._changed:
            self._closing, self._deadline = True, time.monotonic() + patience_s
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, patience_s)
            done = not self._waiting
        if done and self._thread is not None:
            self._thread.join(1)
        return done

    def _deliver(self) -> None:
        pause, failed = _FIRST_PAUSE_S, 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting or (self._deadline is not None and time.monotonic() > self._deadline):
                    return
                work = self._waiting[0]
                late = self._closing
            # One warning for each time that the server goes away, not one for every try.
            if self._attempt(work, quiet=late or failed > 0):
                pause, failed = _FIRST_PAUSE_S, 0
                with self._changed:
                    self._waiting.pop(0)
                    self._changed.notify_all()
                continue
            failed += 1
            with self._changed:
                self._waiting.append(self._waiting.pop(0))
                self._changed.wait_for(lambda: self._closing, pause)
                if self._closing:  # the patience of the end is short: try often
                    self._changed.wait(min(pause, 0.5))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
