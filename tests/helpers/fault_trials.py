"""Trials: processes that are cheap to start and kill, and what must hold after each."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation.training.checkpoint import checkpoints
from helpers.fault_child import Fault
from helpers.process_server import Started, start

ROOT = Path(__file__).resolve().parent.parent.parent
EPOCHS = 4
RUN = [
    "model=yolov4_tiny_small",
    "model.width=0.0625",
    "data.train_images=16",
    "data.val_images=4",
    "data.size_px=64",
    "train.size_px=64",
    "train.batch_size=8",
    f"train.epochs={EPOCHS}",
    "train.eval_every=1",
    "train.precision=fp32",
    "train.threads=1",
    "train.checkpoint_share=1",
    "augment=yolov4",
    "loss=focal",
]
"""Overrides of the tiny run: two steps an epoch, with an average of the weights and every augmentation."""

LONGEST_S = 180.0


class Row:
    """One row of the table of faults: counts its trials, and names those that did not hold."""

    def __init__(self, name: str, record: Any) -> None:
        self.name, self.total, self.failures, self._record = name, 0, list[str](), record

    def trial(self, what: str) -> Trial:
        """A context: an AssertionError in it is this trial's failure, and the next trial goes on."""
        return Trial(self, what)

    def end(self, trials: int) -> list[str]:
        """Put the counts into the summary; the trials that did not hold, and whether some are missing."""
        held = self.total - len(self.failures)
        self._record("faults", f"{self.name}: {held} of {self.total} held")
        missing = [] if self.total == trials else [f"{self.total} of {trials} trials were made"]
        return [*self.failures, *missing]


class Trial:
    def __init__(self, row: Row, what: str) -> None:
        self.row, self.what = row, what

    def __enter__(self) -> Trial:
        self.row.total += 1
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Exception):
            where = trace
            while where.tb_next is not None and "faults" in where.tb_next.tb_frame.f_code.co_filename:
                where = where.tb_next
            line = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
            self.row.failures.append(f"trial {self.row.total} ({self.what}) at {line}: {error}"[:2000])
            return True
        return False


class Forks:
    """Starts processes from the session's server, which has torch and mlflow loaded already."""

    def start(self, folder: Path, arguments: list[str], fault: Fault | None = None) -> Started:
        """Start `ablation ARGUMENTS` in `folder`; its output is appended to `output.log` beside it."""
        log = str(folder.parent / f"{folder.name}.log")
        return self.call("command", arguments, vars(fault or Fault(at=0)), folder=folder, log=log)

    def call(self, function: str, *arguments: Any, folder: Path, log: str = os.devnull) -> Started:
        """Start a function of fault_child."""
        return start(f"helpers.fault_child:{function}", *arguments, folder=folder, out=log, err=log)

    def run(self, folder: Path, arguments: list[str], fault: Fault | None = None) -> tuple[int, str]:
        """Run to the end; (exit code, what it printed)."""
        log = folder.parent / f"{folder.name}.log"
        before = log.stat().st_size if log.exists() else 0
        process = self.start(folder, arguments, fault)
        code = ended(process)
        return code, log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""


def ended(process: Any, seconds: float = LONGEST_S) -> int:
    """The exit code of a process that must end."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"did not end within {seconds:g} s")
    return int(process.exitcode)


def the_run(folder: Path) -> Path:
    """The only run below `folder`."""
    found = sorted(path.parent for path in (folder / "runs").glob("*/*/*/run.json"))
    assert len(found) == 1, f"{len(found)} runs: {[str(p) for p in found]}"
    return found[0]


def lines(run: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a part of a line at the end is left out."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def numbers(run: Path) -> list[dict[str, Any]]:
    """The lines without anything that is a time."""
    return [
        {"epoch": line["epoch"]} | {k: v for k, v in line["metrics"].items() if not k.startswith("time/")}
        for line in lines(run)
    ]


def bits(value: Any, name: str = "") -> dict[str, Any]:
    """A nested state, with every tensor as its type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in bits(item, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in bits(item, f"{name}/{i}").items()}
    return {name: repr(value)}


def epoch_of(path: Path) -> int:
    """The number of finished epochs in a checkpoint's name."""
    return int(path.name.split("-")[1])


def load_whole(path: Path) -> dict[str, Any]:
    """A checkpoint's bits; its content must have the hash in its name."""
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest()[:16] in path.name, f"{path.name} is not whole"
    return bits(torch.load(path, map_location="cpu", weights_only=True))


@dataclass
class Reference:
    """The run that nobody disturbed.

    Attributes:
        folder: where it ran.
        states: epoch -> its checkpoint's bits.
        places: labels of everything lasting that the command does, in order.
        seconds: how long it took.
    """

    folder: Path
    run: Path
    states: dict[int, dict[str, Any]]
    places: list[str]
    seconds: float
    numbers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)

    def holds_after_a_fault(self, folder: Path) -> int:
        """Every checkpoint is whole and right, and no epoch before the newest is lost; returns its epoch."""
        runs = sorted(path.parent for path in (folder / "runs").glob("*/*/*/run.json"))
        if not runs:
            return 0
        (run,) = runs
        found = checkpoints(run)
        for path in found:
            assert load_whole(path) == self.states[epoch_of(path)], f"{path.name} differs"
        newest = epoch_of(found[0]) if found else 0
        written = numbers(run)
        assert written[:newest] == self.numbers[:newest], "an epoch before the last checkpoint was lost"
        assert len(written) <= newest + 1, (
            f"{len(written)} epochs were written, the last kept one is {newest}"
        )
        return newest

    def holds_at_the_end(self, folder: Path, kept: int, times: list[int]) -> Path:
        """The run ended as if nothing had happened, and did not train again what had been kept."""
        run = the_run(folder)
        assert (run / "DONE").read_text() == "FINISHED\n"
        assert numbers(run) == self.numbers, "metrics differ"
        assert [line["time_ms"] for line in lines(run)][:kept] == times[:kept], (
            "a kept epoch was trained again"
        )
        assert bits(torch.load(run / "weights.pt", weights_only=True)) == self.weights, "weights differ"
        newest = checkpoints(run)[0]
        assert epoch_of(newest) == EPOCHS and load_whole(newest) == self.states[EPOCHS], "EMA or optimizer"
        for name in ("detections/val.json", "detections/ground_truth.json"):
            assert (run / name).read_bytes() == (self.run / name).read_bytes(), name
        left = [str(path.relative_to(run)) for path in run.rglob("*.tmp")]
        assert left == [], f"left behind: {left}"
        return run

    def times(self, folder: Path) -> list[int]:
        """When each epoch was written."""
        runs = list((folder / "runs").glob("*/*/*"))
        return [line["time_ms"] for line in lines(runs[0])] if len(runs) == 1 else []


def make_reference(forks: Forks, folder: Path, store: Path) -> None:
    """Two undisturbed runs: one keeps every checkpoint, the other lists the places."""
    import time

    kept, listed = folder / "kept", folder / "listed"
    for place in (kept, listed):
        with_store(place, store)
    code, text = forks.run(kept, ["train", *RUN], Fault(keep=EPOCHS))
    assert code == 0, text
    started = time.monotonic()
    code, text = forks.run(listed, ["train", *RUN], Fault(record=str(folder / "places.json")))
    assert code == 0, text
    (folder / "seconds").write_text(str(time.monotonic() - started))
    assert numbers(the_run(kept)) == numbers(the_run(listed)), (
        "two undisturbed runs differ: nothing could be told"
    )


def read_reference(folder: Path) -> Reference:
    """What make_reference left."""
    kept = folder / "kept"
    run = the_run(kept)
    states = {epoch_of(path): load_whole(path) for path in checkpoints(run)}
    assert sorted(states) == list(range(1, EPOCHS + 1))
    places = json.loads((folder / "places.json").read_text())
    weights = bits(torch.load(run / "weights.pt", weights_only=True))
    return Reference(
        kept, run, states, places, float((folder / "seconds").read_text()), numbers(run), weights
    )


def with_store(folder: Path, store: Path) -> Path:
    """A new folder with a store that is empty and ready (making one takes seconds)."""
    folder.mkdir(parents=True)
    shutil.copy(store, folder / "mlflow.db")
    return folder


@dataclass(frozen=True)
class Logged:
    """What MLflow's database says about one run."""

    study: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    inputs: int
    points: Counter[tuple[str, int, float]]


def logged(database: Path) -> list[Logged]:
    """The runs in an MLflow database, without the one that stands for the study; read by SQL alone."""
    found = []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        runs = "select run_uuid, experiments.name, status from runs join experiments using (experiment_id)"
        for run, study, status in connection.execute(runs).fetchall():
            tags = dict(connection.execute("select key, value from tags where run_uuid = ?", [run]))
            if tags.get("kind") != "run":
                continue
            params = dict(connection.execute("select key, value from params where run_uuid = ?", [run]))
            count = connection.execute("select count(*) from inputs where destination_id = ?", [run])
            points = connection.execute(
                "select key, step, case when is_nan then 'nan' else value end from metrics "
                "where run_uuid = ?",
                [run],
            )
            found.append(Logged(study, status, tags, params, count.fetchone()[0], Counter(points.fetchall())))
    finally:
        connection.close()
    return found


def holds_in_mlflow(database: Path, run: Path, status: str = "FINISHED") -> None:
    """The run is there once, with every setting and every point of its folder exactly once."""
    about = json.loads((run / "run.json").read_text())
    study = run.parent.parent.name  # studies may share a run's key: it is of the configuration alone
    runs = [e for e in logged(database) if (e.study, e.tags["key"]) == (study, about["key"])]
    assert len(runs) == 1, f"{len(runs)} runs in MLflow"
    (entry,) = runs
    assert (entry.status, entry.tags["state"]) == (status, status), f"{entry.status}, {entry.tags['state']}"
    assert entry.params == {k: v[:6000] for k, v in about["params"].items()}, "parameters are missing"
    assert entry.inputs == 1, f"{entry.inputs} data sets"
    doubled = [point for point, count in entry.points.items() if count != 1]
    assert not doubled, f"doubled in MLflow: {doubled[:4]}"
    steps = Counter((name, step) for name, step, _ in entry.points)
    twice = [point for point, count in steps.items() if count != 1]
    assert not twice, f"two values in MLflow: {twice[:4]}"
    expected = {(k, line["epoch"]): v for line in lines(run) for k, v in line["metrics"].items()}
    found = {(name, step): value for name, step, value in entry.points}
    assert found.keys() == expected.keys(), f"not in both: {sorted(found.keys() ^ expected.keys())[:4]}"
    # How long an epoch took is of its first time, where a damaged checkpoint made it be trained again.
    differ = [point for point, value in found.items() if not point[0].startswith("time/")
              and value != "nan" and value != expected[point]]  # fmt: skip
    assert not differ, f"differ: {differ[:4]}"


def one_error(text: str) -> str:
    """The one line that a person reads at the end; there must be no traceback."""
    assert "Traceback" not in text, text[-1500:]
    found = [line for line in text.splitlines() if line.startswith("ablation: ")]
    assert len(found) == 1, text[-1500:]
    return found[0]


def random(name: str) -> np.random.Generator:
    """The generator of a row: its trials are the same each time."""
    return np.random.default_rng([int(byte) for byte in hashlib.sha256(name.encode()).digest()[:8]])


def processes_in(folder: Path) -> dict[int, str]:
    """Living processes whose working folder is `folder` or below it: {pid: command}."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not re.fullmatch(r"\d+", entry.name):
            continue
        try:
            at = str((entry / "cwd").readlink())
            if at == str(folder) or at.startswith(f"{folder}/"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = words[:200]
        except OSError:
            continue
    return found
