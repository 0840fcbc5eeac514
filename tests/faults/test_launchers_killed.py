"""kill -9 of the launcher, two launchers for one study, and Ctrl-C of a study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import launch_counts
from helpers.fault_trials import (
    ROOT,
    RUN,
    Forks,
    Reference,
    Row,
    ended,
    holds_in_mlflow,
    lines,
    logged,
    numbers,
    processes_in,
    random,
    with_store,
)
from helpers.process_server import start

from ablation.tracking.run_folder import RunFolder

SWEEP = """\
# @package _global_
study: little
seeds: [0]
arms:
  - {loss: focal, loss.gamma: [2, 0, 1]}
"""
STUDY = ["train", "-m", "sweeps=little", *(word for word in RUN if not word.startswith("loss")),
         "hydra.launcher.slots=2", "hydra.launcher.threads=1"]  # fmt: skip
ORPHANS_S = 60.0
"""How long the runs of a launcher that is gone may take until they have ended: they have work to save."""


class Launcher:
    """`ablation train -m` in a process; `forked` starts cheaply, else it is the command of a person."""

    def __init__(self, forks: Forks, folder: Path, forked: bool) -> None:
        self.folder, self._log = folder, folder.parent / f"{folder.name}-{time.monotonic_ns()}.log"
        self._process: Any
        if forked:
            log = str(self._log)
            self._process = start("helpers.process_server:command", STUDY, folder=folder, out=log, err=log)
        else:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "ablation.cli", *STUDY], cwd=folder, stdout=log, stderr=log,
                    env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                    start_new_session=True,
                    # The tests may run where it is ignored.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                )  # fmt: skip

    def end(self) -> tuple[int, str]:
        """(exit code, what it printed)."""
        if isinstance(self._process, subprocess.Popen):
            code = self._process.wait(180)
        else:
            code = ended(self._process)
        return code, self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the launcher alone."""
        os.kill(self._process.pid, number)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is None
        return bool(self._process.is_alive())


def study_in(folder: Path, store: Path) -> Path:
    """A folder with the sweep of three runs."""
    with_store(folder, store)
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "little.yaml").write_text(SWEEP)
    return folder


def run_paths(folder: Path) -> list[Path]:
    """The study's runs."""
    return sorted(path.parent for path in (folder / "runs" / "little").glob("*/*/run.json"))


def wait_for(what: Callable[[], bool], seconds: float, launcher: Launcher | None = None) -> bool:
    """Wait until it is so, the time is over, or the launcher has ended."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until or (launcher is not None and not launcher.alive):
            return what()
        time.sleep(0.01)
    return True


def epochs_written(folder: Path) -> int:
    """Over all runs."""
    return sum(len(lines(run)) for run in run_paths(folder))


def holds_for_the_study(folder: Path, reference: Reference) -> None:
    """Three runs, each finished once, and the one that is the reference's is bit for bit as it was."""
    runs = run_paths(folder)
    assert len(runs) == 3, runs
    for run in runs:
        assert (run / "DONE").read_text() == "FINISHED\n"
        assert [line["epoch"] for line in lines(run)] == [1, 2, 3, 4]
        holds_in_mlflow(folder / "mlflow.db", run)
    assert len(logged(folder / "mlflow.db")) == 3, "a run is in MLflow twice"
    (same,) = [run for run in runs if run.name == reference.run.name]
    assert numbers(same) == reference.numbers


def nobody_is_left(folder: Path) -> None:
    """The processes of a launcher that is gone end by themselves."""
    assert wait_for(lambda: not processes_in(folder), ORPHANS_S), f"orphans: {processes_in(folder)}"


def kill_launcher_at(forks: Forks, folder: Path, epochs: int, forked: bool) -> None:
    """Start a study and kill its launcher once so many epochs are written."""
    launcher = Launcher(forks, folder, forked)
    wait_for(lambda: epochs_written(folder) >= epochs, 120, launcher)
    launcher.signal(signal.SIGKILL)
    launcher.end()
    nobody_is_left(folder)


def goes_on(forks: Forks, folder: Path, reference: Reference, forked: bool) -> None:
    """Launched again, only what is missing is trained."""
    done = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_paths(folder)
            if (run / "DONE").exists()}  # fmt: skip
    kept = {run: [line["time_ms"] for line in RunFolder(run).settled_metrics()] for run in run_paths(folder)}
    code, text = Launcher(forks, folder, forked).end()
    assert code == 0, text[-2000:]
    assert launch_counts(text) == {"done": len(done), "to do": 3 - len(done)}
    for run, stamp in done.items():
        assert (run / "metrics.jsonl").stat().st_mtime_ns == stamp, "a finished run was trained again"
    for run, times in kept.items():
        assert [line["time_ms"] for line in lines(run)][: len(times)] == times, (
            "a kept epoch was trained again"
        )
    holds_for_the_study(folder, reference)
    nobody_is_left(folder)


def test_kill_9_of_the_launcher_in_short(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path, record_property: object
) -> None:
    """The first trial of the row below, from processes that are cheap to start."""
    row = Row("kill -9 of the launcher", record_property)
    with row.trial("after 5 epochs"):
        folder = study_in(tmp_path / "study", empty_store)
        kill_launcher_at(forks, folder, 5, forked=True)
        goes_on(forks, folder, reference, forked=True)
    assert row.end(1) == []


@pytest.mark.fault
def test_kill_9_of_the_launcher(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path, record_property: object
) -> None:
    """No orphans, nothing run twice, only what is missing is launched again."""
    row, generator = Row("kill -9 of the launcher", record_property), random("kill -9 of the launcher")
    for number, epochs in enumerate(generator.integers(0, 12, 20)):
        with row.trial(f"after {epochs} epochs"):
            folder = study_in(tmp_path / str(number), empty_store)
            kill_launcher_at(forks, folder, int(epochs), forked=False)
            goes_on(forks, folder, reference, forked=False)
    assert row.end(20) == []


@pytest.mark.parametrize(
    "trials", [pytest.param(1, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_two_launchers_for_one_study(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """Started at about the same moment, they share the runs: each is trained once, and neither fails."""
    row, generator = Row("two launchers, one study", record_property), random("two launchers")
    for number, pause in enumerate(generator.uniform(0, 3, trials) * (generator.uniform(0, 1, trials) < 0.5)):
        with row.trial(f"{pause:.2f} s apart"):
            folder = study_in(tmp_path / str(number), empty_store)
            first = Launcher(forks, folder, forked=trials == 1)
            time.sleep(pause)
            second = Launcher(forks, folder, forked=trials == 1)
            codes = [launcher.end() for launcher in (first, second)]
            assert [code for code, _ in codes] == [0, 0], "\n".join(text[-1500:] for _, text in codes)
            holds_for_the_study(folder, reference)
            nobody_is_left(folder)
    assert row.end(trials) == []


@pytest.mark.fault
def test_ctrl_c_and_sigterm_of_a_study(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path, record_property: object
) -> None:
    """The runs are KILLED here and in MLflow, their checkpoints stay, and the study goes on later."""
    row, generator = Row("SIGTERM, Ctrl-C of a study", record_property), random("Ctrl-C of a study")
    for number, epochs in enumerate(generator.integers(1, 10, 10)):
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        with row.trial(f"{sent.name} after {epochs} epochs"):
            folder = study_in(tmp_path / str(number), empty_store)
            launcher = Launcher(forks, folder, forked=False)
            assert wait_for(lambda f=folder, e=epochs: epochs_written(f) >= e, 120, launcher)  # type: ignore[misc]
            launcher.signal(sent)
            code, text = launcher.end()
            assert code in (130, 143, -signal.SIGTERM), f"exit code {code}\n{text[-1500:]}"
            assert "Traceback" not in text, text[-1500:]
            nobody_is_left(folder)
            states = {run.name: RunFolder(run).state for run in run_paths(folder)}
            assert set(states.values()) <= {"KILLED", "FINISHED"}, states
            for entry in logged(folder / "mlflow.db"):
                assert entry.status == entry.tags["state"] in ("KILLED", "FINISHED"), entry.tags
            goes_on(forks, folder, reference, forked=False)
    assert row.end(10) == []
