"""A loss or gradient that is not finite, at any step."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fault_trials import (
    EPOCHS,
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    load_whole,
    one_error,
    random,
    with_store,
)
from helpers.one_picture import without_figures

from ablation.analyse.report.report import write_report
from ablation.analyse.tables import table
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study
from ablation.training.checkpoint import checkpoints


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_nan_at_step_k(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """Noticed within the step, kept as DIVERGED with the epochs before it, and counted in every table."""
    row, generator = Row("NaN at step k", record_property), random("NaN")
    steps = 2 * EPOCHS
    folder = with_store(tmp_path / "study", empty_store)
    code, text = forks.run(folder, ["train", *RUN, "seed=0"])
    assert code == 0, text
    for number in range(trials):
        step = number % steps + 1 if trials >= steps else int(generator.integers(1, steps + 1))
        fault = Fault(nan_at_step=step, only_gradient=bool(number % 2))
        with row.trial(f"step {step}, {'gradient' if fault.only_gradient else 'loss'}"):
            code, text = forks.run(folder, ["train", *RUN, f"seed={number + 1}"], fault)
            where = f"epoch {(step + 1) // 2}, step {2 - step % 2}"
            assert code == 1 and f"DIVERGED at {where}: " in one_error(text), text
            (run,) = (folder / "runs").glob(f"*/*/seed{number + 1}-*")
            assert (run / "DONE").read_text() == "DIVERGED\n"
            kept = checkpoints(run)
            assert len(kept) == min(2, (step - 1) // 2)
            assert all("nan" not in str(load_whole(path).get("/calibration")) for path in kept)
            again, text = forks.run(folder, ["train", *RUN, f"seed={number + 1}"])
            assert again == 1 and "epoch 1/" not in text, "a diverged run was trained again"
    study = load_study(Store.of(f"sqlite:///{folder / 'mlflow.db'}", None), "default")
    runs = table.runs_table(study)
    arms = table.arms_table(runs, "val/AP")
    with row_counts(row):
        assert runs["state"].value_counts().to_dict() == {"DIVERGED": trials, "FINISHED": 1}
        assert runs.loc[runs["state"] == "DIVERGED", "val/AP"].isna().all(), "analysed as data"
        assert arms[["n", "n_finished", "n_diverged", "n_planned"]].to_numpy().tolist() == [
            [1, 1, trials, trials + 1]
        ]
        problems = table.problems(runs)
        assert problems["problem"].tolist() == ["diverged"] * trials
        assert problems["reason"].str.contains(r"epoch \d, step \d: loss").all()
        assert table.state_counts(runs) == f"{trials} DIVERGED, 1 FINISHED"
        with without_figures():
            written = write_report(study, tmp_path / "report")
        assert f"{trials} diverged" in written.text
        page = written.arms_md.read_text()
        assert page.count("| diverged |") == trials and f"{trials} diverged" in page
        assert written.runs_csv.read_text().count("DIVERGED") == trials
    assert row.end(trials) == []


class row_counts:
    """What is checked once for all trials: a failure is one of the row's."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, AssertionError):
            self.row.failures.append(f"the tables: {error}")
            return True
        return False
