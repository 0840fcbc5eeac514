"""A store and a run's folder, without training."""

from __future__ import annotations

from pathlib import Path

from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store


def store_in(folder: Path) -> Store:
    return Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)


def open_store_with_experiment(folder: str, experiment: str) -> None:
    """What a process does that logs into `folder`: open the store, or create it, and the experiment."""
    store = store_in(Path(folder))
    store.prepare()
    store.experiment(experiment)


def run_folder(folder: Path, arm: str = "bce", seed: int = 0, key: str = "k" * 64) -> RunFolder:
    run = RunFolder.of(folder / "runs", "s", arm, seed, key)
    run.write_json(
        "run.json",
        {
            "study": "s",
            "description": "",
            "arm": arm,
            "seed": seed,
            "key": key,
            "fingerprint": "f" * 64,
            "command": "ablation train",
            "code": {"version": "0.1.0"},
            "data": {"name": "d"},
            "data_profile": {},
            "params": {"loss.name": arm, "loss.gamma": "2.0", "loss.alpha": "None"},
        },
    )
    run.file("config.yaml").write_text("seed: 0\n")
    run.set_state("RUNNING")
    return run
