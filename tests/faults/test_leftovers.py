"""RUNNING leftovers, FAILED runs, duplicates and superseded ones in the store: reported, and no data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fault_trials import Row, random, with_store

from ablation.analyse.tables import table
from ablation.records import Plan, PlannedRun
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

KINDS = (
    "FINISHED",
    "RUNNING",
    "FAILED",
    "KILLED",
    "STOPPED",
    "DIVERGED",
    "duplicate",
    "superseded",
    "missing",
)
POISON = 0.999
"""The value of every run that is no data: seen in no number, if none of them is analysed."""


def record(
    folder: Path, store: Store, arm: str, seed: int, key: str, state: str, value: float, out: str
) -> None:
    """One run's folder, copied into the store as a run does."""
    run = RunFolder.of(folder / out, "s", arm, seed, key)
    loss = {"loss.name": "focal", "loss.gamma": arm[-1]} if arm != "bce" else {"loss.name": "bce"}
    run.write_json(
        "run.json",
        {"study": "s", "description": "", "arm": arm, "seed": seed, "key": key, "fingerprint": "f" * 64,
         "command": "ablation train", "code": {"version": "0"}, "data": {"name": "d"}, "data_profile": {},
         "params": loss},
    )  # fmt: skip
    run.set_state("RUNNING")
    mirror = Mirror(store, run, strict=True)
    mirror.start()
    run.file("metrics.jsonl").unlink(missing_ok=True)  # a duplicate starts anew in the same folder
    run.append_metrics(1, {"val/AP": value})
    run.file("checkpoint-000001-0123456789abcdef.pt").touch()
    if state == "RUNNING":  # killed: nobody wrote how it ended
        mirror.push()
        return
    run.set_state(state, "because" if state != "FINISHED" else "")
    mirror.finish([])


@pytest.mark.parametrize(
    "trials", [pytest.param(1, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_leftovers_in_the_store(empty_store: Path, tmp_path: Path, trials: int, record_property: Any) -> None:
    """Each is counted under its own name, and only the finished ones of the plan carry values."""
    row = Row("RUNNING leftovers, FAILED, duplicates in the store", record_property)
    generator = random("leftovers")
    for number in range(trials):
        kinds = [str(kind) for kind in generator.permutation([*KINDS, *generator.choice(KINDS, 5)])]
        with row.trial(" ".join(kinds)):
            _trial(with_store(tmp_path / str(number), empty_store), kinds, generator)
    assert row.end(trials) == []


def _trial(folder: Path, kinds: list[str], generator: np.random.Generator) -> None:
    store = Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)
    planned, good, expected = [], dict[tuple[str, int], float](), Counter[str]()
    for seed, kind in enumerate(kinds):
        arm = ("bce", "focal-1", "focal-2")[int(generator.integers(3))]
        key, value = f"{seed:064x}", float(generator.uniform(0.1, 0.5))
        planned.append(PlannedRun(arm, seed, key, "ablation train"))
        if kind == "missing":
            expected["missing"] += 1
            continue
        finished = kind in ("FINISHED", "duplicate", "superseded")
        if finished:
            good[arm, seed] = value
        record(folder, store, arm, seed, key, "FINISHED" if finished else kind,
               value if finished else POISON, "runs")  # fmt: skip
        if kind == "duplicate":  # the same run, from another folder, that never ended well
            state = str(generator.choice(["RUNNING", "FAILED", "KILLED"]))
            record(folder, store, arm, seed, key, state, POISON, "elsewhere")
        if kind == "superseded":
            record(folder, store, arm, seed, f"{seed + 1000:064x}", "FINISHED", POISON, "runs")
        if kind != "FINISHED":
            expected[kind.lower()] += 1
    publish_plan(store, "s", Plan(planned))
    runs = table.runs_table(load_study(store, "s"))
    counted = runs[runs["valid"]]
    assert {(arm, seed): value for arm, seed, value in zip(counted["arm"], counted["seed"], counted["val/AP"],
            strict=True)} == pytest.approx(good)  # fmt: skip
    assert not (runs["val/AP"] == POISON).any(), "analysed as data"
    assert runs.loc[~runs["valid"], "val/AP"].isna().all()
    problems = table.problems(runs)
    assert Counter(problems["problem"]) == expected
    assert (problems["reason"] != "").sum() >= len(problems) - expected["running"]
    arms = table.arms_table(runs, "val/AP").set_index("arm")
    for arm, rows in arms.iterrows():
        mine = [value for (name, _), value in good.items() if name == arm]
        assert rows["n"] == len(mine) and (not mine or rows["mean"] == pytest.approx(np.mean(mine)))
    columns = {
        "n_diverged": ["diverged"],
        "n_failed": ["failed", "killed"],
        "n_unfinished": ["running", "stopped"],
        "n_missing": ["missing"],
    }
    for column, names in columns.items():
        assert arms[column].sum() == sum(expected[name] for name in names), column
