"""SIGTERM and Ctrl-C: the run keeps its checkpoint, says KILLED here and in MLflow, and goes on later."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fault_helpers import (
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    holds_in_mlflow,
    logged,
    random,
    with_store,
)

from ablation.run_folder import RunFolder


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_sigterm_and_ctrl_c(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path, trials: int, record_property: object
) -> None:
    """Half of the trials get SIGTERM and half Ctrl-C, at places from where the run is called RUNNING."""
    row, generator = Row("SIGTERM, Ctrl-C of a run", record_property), random("signals")
    running = reference.places.index("state.json: after rename") + 1
    last = len(reference.places) - reference.places[::-1].index("DONE: before rename")
    places = generator.choice(range(running, last), trials, replace=False)
    for number, place in enumerate(int(n) for n in places):
        sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
        with row.trial(f"{sent.name} at {reference.places[place - 1]!r}"):
            folder = with_store(tmp_path / str(number), empty_store)
            code, text = forks.run(folder, ["train", *RUN], Fault(at=place, signal=sent))
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
    row.end(trials)
