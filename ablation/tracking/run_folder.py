"""A run's folder: the truth about the run, of which MLflow is a copy.

config.yaml      the typed, resolved configuration
run.json         study, arm, seed, key, fingerprint, code version, command
metrics.jsonl    one fsynced line an epoch: {"epoch", "time_ms", "metrics"}
checkpoint-*.pt  see checkpoint.py
checkpoint.json  of a run that a command trains: {"epoch"}, up to which no resuming repeats anything
trainer/         of a run that a command trains: that command's own files
notes.json       facts found while training (batch digests, gain, machine)
diagnostics/     what the run found out about its loss, see ablation/diagnostics
batch.png        images of the first training batch, as the network sees them, with their boxes
detections/      val results in COCO's format, and the ground truth they belong to
state.json       RUNNING, STOPPED, KILLED, FAILED, PRUNED, DIVERGED or FINISHED, why, and on which machine
.lock            held by the process that trains the run; touched by it, so that other machines see it live
DONE             written last: FINISHED or DIVERGED, nothing left to do
"""

from __future__ import annotations

import json
import math
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablation.errors import StoreError, one_line
from ablation.files import append_line, is_locked, safe_name, write_json, write_text
from ablation.records import STATES
from ablation.tracking.study_folder import study_folder

DONE_STATES = ("FINISHED", "DIVERGED")

REDO = "delete the run's folder and launch the study again"

OWN_FOLDER = "trainer"
"""What a command that trains a run writes to."""

BEAT_S = 10.0
SILENT_S = 60.0


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, out: Path, study: str, arm: str, seed: int, key: str) -> RunFolder:
        """runs/<study>/<arm>/seed<k>-<key8>; names become safe path components."""
        return cls(study_folder(out, study) / safe_name(arm) / f"seed{seed}-{key[:8]}")

    def file(self, name: str) -> Path:
        """A file of this folder."""
        return self.path / name

    def read_json(self, name: str) -> dict[str, Any]:
        """A small JSON file of this folder; {} where it does not exist."""
        path = self.file(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError, RecursionError) as error:
            raise StoreError(f"{path}: not readable as JSON ({_reason(error)}); {REDO}") from None
        if not isinstance(value, dict):
            raise StoreError(f"{path}: holds {type(value).__name__}, must hold an object; {REDO}")
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Write a small JSON file, whole or not at all."""
        write_json(self.file(name), value)

    def note(self, **values: Any) -> None:
        """Add facts to notes.json."""
        self.write_json("notes.json", self.read_json("notes.json") | values)

    def artifacts(self) -> list[Path]:
        """What goes into MLflow beside the numbers: detections, first batch, weights, faults, diagnostics."""
        names = (
            "detections/val.json",
            "detections/ground_truth.json",
            "detections/test.json",
            "detections/test_ground_truth.json",
            "batch.png",
            "weights.pt",
            "faults.json",
        )
        diagnostics = sorted(self.file("diagnostics").glob("*.json"))
        return [path for path in map(self.file, names) if path.exists()] + diagnostics

    # state

    @property
    def state(self) -> str:
        """DONE's content where it exists, else state.json's, else MISSING.

        Raises:
            StoreError: a file is damaged.
        """
        path = self.file("DONE")
        try:
            state = path.read_bytes().decode("utf-8", "backslashreplace").strip()
        except FileNotFoundError:
            state = str(self.read_json("state.json").get("state", "MISSING"))
            if state not in (*STATES, "MISSING"):
                raise StoreError(
                    f"{self.file('state.json')}: state is {one_line(state, 40)!r}; {REDO}"
                ) from None
            return state
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from None
        if state not in DONE_STATES:
            raise StoreError(
                f"{path}: holds {one_line(state, 40)!r}, must hold {' or '.join(DONE_STATES)}; delete that "
                "file and launch the study again"
            )
        return state

    @property
    def reason(self) -> str:
        """Why the run is in its state; one line, may be empty."""
        return str(self.read_json("state.json").get("reason", ""))

    @property
    def in_training(self) -> bool:
        """Whether a process trains this run now.

        On one machine, or over a file system that shares locks, the lock says it exactly. Another
        machine's process is also known by its heartbeat, which may be SILENT_S old.
        """
        lock = self.file(".lock")
        if is_locked(lock):
            return True
        state = self.read_json("state.json")
        if state.get("state") != "RUNNING" or state.get("host") in (None, platform.node()):
            return False
        return lock.exists() and time.time() - lock.stat().st_mtime < SILENT_S

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """While it lasts, touch the lock's file every BEAT_S seconds, from a thread."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.is_set():
                with suppress(OSError):  # a full or lost disk is for the training itself to report
                    self.file(".lock").touch()
                ended.wait(BEAT_S)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def set_state(self, state: str, reason: str = "") -> None:
        """Record the state; for a final one, DONE is written after everything else."""
        now = round(time.time() * 1000)
        former = self.read_json("state.json")
        started = now if state == "RUNNING" and not former else former.get("started_ms", now)
        ended = None if state == "RUNNING" else max(now, started)  # the clock may have been set back
        self.write_json(
            "state.json",
            {
                "state": state,
                "reason": reason,
                "started_ms": started,
                "ended_ms": ended,
                "pid": os.getpid(),
                "host": platform.node(),
            },
        )
        if state in DONE_STATES:
            write_text(self.file("DONE"), state + "\n")

    # metrics

    def append_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add the line of one epoch (1-based). Values that are not finite are kept as text."""
        line = {"epoch": epoch, "time_ms": round(time.time() * 1000), "metrics": metrics}
        append_line(self.file("metrics.jsonl"), json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """Every whole line; a last line that a crash cut off is left out."""
        return list(NewMetrics(self).lines())

    def settled_metrics(self) -> list[dict[str, Any]]:
        """The lines that no resuming can replace: up to the newest checkpoint, or all once it is DONE."""
        settled = self.settled_epoch
        return [line for line in self.metrics() if line["epoch"] <= settled]

    @property
    def settled_epoch(self) -> float:
        """The last epoch that no resuming trains again: the newest checkpoint's; infinite once it is DONE."""
        return math.inf if self.file("DONE").exists() else self.checkpoint_epoch

    @property
    def checkpoint_epoch(self) -> int:
        """The number of finished epochs that the newest checkpoint holds; 0: there is none."""
        names = (path.name for path in self.path.glob("checkpoint-*-*.pt"))
        own = self.read_json("checkpoint.json").get("epoch", 0)
        return max((int(name.split("-")[1]) for name in names), default=own if type(own) is int else 0)

    def truncate_metrics(self, epoch: int) -> None:
        """Drop what lies beyond `epoch`: those epochs are about to be trained again."""
        lines = [json.dumps(line) for line in self.metrics() if line["epoch"] <= epoch]
        write_text(self.file("metrics.jsonl"), "".join(line + "\n" for line in lines))


class NewMetrics:
    """Reads metrics.jsonl while it grows, every line once.

    Where the file was replaced or shortened since, as by a resumed run, it is read from its start.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.file("metrics.jsonl")
        self._start_anew(0)

    def _start_anew(self, file: int) -> None:
        self._file, self._offset, self._number, self._epoch = file, 0, 1, 0

    def lines(self, until: float = math.inf) -> Iterator[dict[str, Any]]:
        """The lines up to epoch `until` that were not read yet; a last one that a crash cut off is left out.

        A line has been read once the next one is asked for: one that could not be used comes again.

        Raises:
            StoreError: a line is damaged.
        """
        *texts, rest = self._unread().split(b"\n")
        for text, end in [*((text, 1) for text in texts), (rest, 0)]:
            line = self._line(text, whole=bool(end))
            if line is not None:
                if line["epoch"] > until:
                    return
                yield line
                self._epoch = line["epoch"]
            if line is not None or end:
                self._offset += len(text) + end
                self._number += end

    def _unread(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._file or stat.st_size < self._offset:
                    self._start_anew(stat.st_ino)
                file.seek(self._offset)
                return file.read()
        except FileNotFoundError:
            self._start_anew(0)
            return b""
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read ({error.strerror})") from None

    def _line(self, text: bytes, whole: bool) -> dict[str, Any] | None:
        """The line of a text; None where it holds none, or is the cut-off end of the file."""
        if not text:
            return None
        try:
            line = _metrics_line(text.decode("utf-8"))
            if self._epoch and line["epoch"] < self._epoch + (not _is_of_test(line)):
                raise ValueError(f"epoch {line['epoch']} comes after epoch {self._epoch}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if not whole:
                return None
            excerpt = one_line(text[:60].decode("utf-8", "backslashreplace"))
            raise StoreError(f"{self._path}:{self._number}: {_reason(error)}: {excerpt}; {REDO}") from None
        return line


def _is_of_test(line: dict[str, Any]) -> bool:
    """Whether it is the line of `ablation confirm`, which follows that of the last epoch."""
    return all(name.startswith("test/") for name in line["metrics"])


def _metrics_line(text: str) -> dict[str, Any]:
    """One line of metrics.jsonl: {"epoch", "time_ms", "metrics"}; ValueError if it is anything else."""
    line: dict[str, Any] = json.loads(text)
    numbers = [line["epoch"], line["time_ms"]]
    if not all(type(value) is int and 0 <= value < 2**53 for value in numbers) or line["epoch"] < 1:
        raise ValueError("epoch and time_ms must be whole numbers, epoch at least 1")
    if not line["metrics"]:
        raise ValueError("metrics must not be empty")
    if not all(type(value) in (int, float) for value in line["metrics"].values()):
        raise ValueError("a metric is not a number")
    for name, value in line["metrics"].items():
        if type(value) is int and abs(value) > 2**53:
            raise ValueError(f"{one_line(name, 40)} is no number that a float holds")
    return line


def _reason(error: Exception) -> str:
    """Why a text is not what it should be."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, KeyError):
        return f"no entry {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return one_line(error, 100)
