"""The newest checkpoint cut off, or one of its bits flipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.fault_trials import RUN, Forks, Reference, Row, holds_in_mlflow, random, the_run, with_store

from ablation.training.checkpoint import checkpoints


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(50, id="full", marks=pytest.mark.fault)]
)
def test_newest_checkpoint_truncated_or_a_bit_flipped(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """It is named, the one before is used, and the run ends as if it had not been damaged."""
    row = Row("newest checkpoint truncated or a bit flipped", record_property)
    generator = random("damaged checkpoints")
    stopped, folder = tmp_path / "stopped", with_store(tmp_path / "run", empty_store)
    code, text = forks.run(folder, ["train", *RUN, "train.stop_after=3"])
    assert code == 0, text
    folder.rename(stopped)
    for number in range(trials):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stopped, folder)  # in the same place: the run's folder is part of what MLflow knows
        newest, former = checkpoints(the_run(folder))
        content = bytearray(newest.read_bytes())
        if number % 2:
            length = int(generator.integers(len(content)))
            what, content = f"cut off after {length} of {len(content)} bytes", content[:length]
        else:
            bit = int(generator.integers(8 * len(content)))
            what = f"bit {bit} flipped"
            content[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(content)
        with row.trial(what):
            times = reference.times(folder)
            code, text = forks.run(folder, ["train", *RUN])
            assert code == 0, text
            assert newest.name in text and "damaged" in text, "it was used, or passed over, in silence"
            assert f"using {former.name}" in text
            holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, 2, times))
    assert row.end(trials) == []


def test_all_checkpoints_damaged(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path
) -> None:
    """Then it starts from the beginning, and says so."""
    folder = with_store(tmp_path / "run", empty_store)
    code, text = forks.run(folder, ["train", *RUN, "train.stop_after=2"])
    assert code == 0, text
    for path in checkpoints(the_run(folder)):
        path.write_bytes(b"")
    code, text = forks.run(folder, ["train", *RUN])
    assert code == 0 and text.count("damaged") == 2 and "starting from the beginning" in text, text
    holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, 0, []))
