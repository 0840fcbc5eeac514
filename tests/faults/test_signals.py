"""SIGTERM and Ctrl-C: the run keeps its checkpoint, says KILLED here and in MLflow, and goes on later."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.fault_trials import (
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    ended,
    holds_in_mlflow,
    logged,
    random,
    with_store,
)

from ablation.tracking.run_folder import RunFolder


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_sigterm_and_ctrl_c(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """Half of the trials get SIGTERM and half Ctrl-C; half at places, half at moments, of a RUNNING run."""
    row, generator = Row("SIGTERM, Ctrl-C of a run", record_property), random("signals")
    running = reference.places.index("state.json: after rename") + 1
    last = len(reference.places) - reference.places[::-1].index("DONE: before rename")
    places = generator.choice(range(running, last), trials, replace=False)
    for number, place in enumerate(int(n) for n in places):
        sent = (signal.SIGTERM, signal.SIGINT)[number // 2 % 2]
        moment = None if number % 2 else generator.uniform(0, 0.6 * reference.seconds)
        what = reference.places[place - 1] if moment is None else f"{moment:.3f} s after it began"
        with row.trial(f"{sent.name} at {what}"):
            folder = with_store(tmp_path / str(number), empty_store)
            fault = Fault(
                at=place if moment is None else 0, signal=sent, epoch_s=0.0 if moment is None else 0.5
            )
            process, log = forks.start(folder, ["train", *RUN], fault), tmp_path / f"{number}.log"
            if moment is not None:
                state = "runs/*/*/*/state.json"
                while not list(folder.glob(state)) and process.is_alive():
                    time.sleep(0.002)
                time.sleep(moment)
                os.kill(process.pid, sent)
            code, text = ended(process), log.read_text()
            assert code == 130, f"exit code {code}\n{text[-1500:]}"
            assert "interrupted; launch the same command again" in text, text[-1500:]
            kept = reference.holds_after_a_fault(folder)
            (path,) = (folder / "runs").glob("*/*/*")
            run = RunFolder(path)
            assert run.state in ("KILLED", "FINISHED"), run.state
            assert run.state == "KILLED" or kept == len(reference.numbers)
            (entry,) = logged(folder / "mlflow.db")
            assert (entry.status, entry.tags["state"]) == (run.state, run.state)
            assert len({step for _, step, _ in entry.points}) == kept, "MLflow has other epochs than are kept"
            times = reference.times(folder)
            code, text = forks.run(folder, ["train", *RUN])
            assert code == 0, text
            holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, kept, times))
    assert row.end(trials) == []
