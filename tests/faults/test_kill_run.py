"""kill -9 of a run, at places inside its saves and at random moments."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.fault_trials import (
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    ended,
    epoch_of,
    holds_in_mlflow,
    random,
    the_run,
    with_store,
)

from ablation.training.checkpoint import checkpoints


def chosen_places(reference: Reference, count: int, generator: np.random.Generator) -> list[int]:
    """Places (from 1): at least half of them inside the writing of a checkpoint, the others anywhere."""
    saves = [n for n, label in enumerate(reference.places, 1) if label.startswith("checkpoint-")]
    others = [n for n in range(1, len(reference.places) + 1) if n not in saves]
    inside = min(len(saves), max(1, count // 2))
    return [int(n) for n in generator.choice(saves, inside, replace=False)] + [
        int(n) for n in generator.choice(others, count - inside, replace=False)
    ]


@pytest.mark.parametrize(
    ("places", "moments"),
    [pytest.param(1, 1, id="short"), pytest.param(70, 30, id="full", marks=pytest.mark.fault)],
)
def test_kill_9_of_a_run(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path, places: int, moments: int,
    record_property: object,
) -> None:  # fmt: skip
    """A run that was killed goes on at its last whole checkpoint, and ends as if nothing had happened."""
    row, generator = Row("kill -9 of a run", record_property), random("kill -9 of a run")
    trials: list[tuple[str, int, float]] = [
        (reference.places[n - 1], n, 0.0) for n in chosen_places(reference, places, generator)
    ]
    trials += [(f"after {s:.3f} s", 0, s) for s in generator.uniform(0, reference.seconds, moments)]
    for number, (what, place, seconds) in enumerate(trials):
        with row.trial(what):
            folder = with_store(tmp_path / str(number), empty_store)
            process = forks.start(folder, ["train", *RUN], Fault(at=place))
            if not place:
                time.sleep(seconds)
                process.kill()
            code = ended(process)
            assert code == -signal.SIGKILL or (code == 0 and not place), f"exit code {code}"
            kept = reference.holds_after_a_fault(folder)
            times = reference.times(folder)
            code, text = forks.run(folder, ["train", *RUN])
            assert code == 0, text
            run = reference.holds_at_the_end(folder, kept, times)
            holds_in_mlflow(folder / "mlflow.db", run)
            before = (run / "metrics.jsonl").stat().st_mtime_ns
            if number % 10 == 0:
                code, text = forks.run(folder, ["train", *RUN])
                assert code == 0 and "epoch" not in text, text
            assert (run / "metrics.jsonl").stat().st_mtime_ns == before, "it was finished twice"
    assert row.end(places + moments) == []


def test_kill_9_far_from_a_checkpoint(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path
) -> None:
    """Checkpoints may take no time here, so only the first epoch has one: the epochs after it run again."""
    seldom = [*RUN, "train.checkpoint_share=0.000001"]
    folder = with_store(tmp_path / "seldom", empty_store)
    process = forks.start(folder, ["train", *seldom], None)
    while len(reference.times(folder)) < 3 and process.exitcode is None:
        time.sleep(0.002)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    times = reference.times(folder)
    (newest, *_) = checkpoints(the_run(folder))
    assert epoch_of(newest) == 1 and len(times) >= 3
    code, text = forks.run(folder, ["train", *seldom])
    assert code == 0, text
    holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, 1, times))
