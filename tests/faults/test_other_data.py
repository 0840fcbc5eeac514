"""Runs on other data or with another setting in one study: not compared, and a line that says where."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fault_trials import Row, random, with_store
from hydra import compose, initialize_config_dir

from ablation.analyse.tables.held_fixed import is_free
from ablation.analyse.tables.settings import GAIN, LOSS
from ablation.analyse.verdict.verdict import judge
from ablation.analyse.view import study_view
from ablation.config import flat, plain, typed
from ablation.rng import generator as stream
from ablation.study.app import register_plugins
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(4)
ARMS = {
    "bce": {"loss.name": "bce"},
    "focal-1": {"loss.name": "focal", "loss.gamma": "1"},
    "focal-2": {"loss.name": "focal", "loss.gamma": "2"},
}


def settings() -> dict[str, str]:
    """The settings of a real run, without the loss."""
    register_plugins()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("train", [f"hydra.searchpath=['file://{ROOT}']"]))
    values = {name: str(value) for name, value in flat(plain(config)).items()}
    of_the_study = ("arms", "seeds", "analysis.", "retry", "replace", "halving.")
    return {name: text for name, text in values.items() if not name.startswith((LOSS, *of_the_study))}


def record(store: Store, out: Path, arm: str, seed: int, params: dict[str, str], fingerprint: str) -> None:
    """A finished run, as it stands in its folder and in the store."""
    run = RunFolder.of(out, "s", arm, seed, f"{arm} {seed} key")
    about = {"study": "s", "description": "", "arm": arm, "seed": seed, "key": f"{arm} {seed} key"}
    about |= {
        "command": "ablation train",
        "code": {"version": "0"},
        "data": {"name": "d"},
        "data_profile": {},
    }
    run.write_json("run.json", about | {"fingerprint": fingerprint, "params": params | ARMS[arm]})
    run.set_state("RUNNING")
    mirror = Mirror(store, run, strict=True)
    mirror.start()
    run.append_metrics(1, {"val/AP": 0.4 + 0.01 * seed + 0.1 * ("focal" in arm)})
    run.set_state("FINISHED")
    mirror.finish([])


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_other_data_in_one_study(
    empty_store: Path, tmp_path: Path, trials: int, record_property: Any
) -> None:
    """A random arm, or some of its seeds, has other data or another value of a random setting."""
    row = Row("other data or another setting in one study", record_property)
    generator, params = random("other data"), settings()
    names = sorted(name for name in params if not is_free(name) and name != GAIN)
    for number in range(trials):
        name = "fingerprint" if number % 2 == 0 else str(generator.choice(names))
        arm = str(generator.choice(list(ARMS)))
        count = int(generator.integers(1, len(SEEDS) + 1))
        seeds = sorted(int(seed) for seed in generator.choice(SEEDS, count, replace=False))
        with row.trial(f"{name} in {arm}, seeds {seeds}"):
            folder = with_store(tmp_path / str(number), empty_store)
            _trial(folder, params, name, arm, seeds)
    assert row.end(trials) == []


def _trial(folder: Path, params: dict[str, str], name: str, arm: str, seeds: list[int]) -> None:
    store = Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)
    changed = {(arm, seed) for seed in seeds}
    for run in itertools.product(ARMS, SEEDS):
        of_other_data = name == "fingerprint" and run in changed
        of_run = params | {name: "7"} if name != "fingerprint" and run in changed else params
        record(store, folder / "runs", *run, of_run, ("b" if of_other_data else "a") * 64)
    view = study_view(load_study(store, "s"))
    verdict = judge(view, partial=True, generator=stream(0, "report"))
    assert verdict.sentence.startswith("no verdict") and verdict.recommended is None
    assert ("2 data sets" if name == "fingerprint" else name) in verdict.sentence and arm in verdict.sentence
    for comparison in verdict.arms:
        assert comparison.verdict == "no verdict"
        crosses = arm in (comparison.arm, comparison.against)
        assert math.isnan(comparison.difference) == crosses and (comparison.n_pairs == 0) == crosses
    assert "NOT held fixed" in view.held_text
    assert np.isfinite([comparison.difference for comparison in verdict.arms]).sum() == (arm != "bce")
