"""Is one run for each core faster than one run of all the cores? The pool's default says so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.command import run_folders, started_from_nothing

RUN = [
    "model=yolov4_small", "data.train_images=128", "data.val_images=8", "train.size_px=96", "data.size_px=96",
    "train.batch_size=16", "train.epochs=4", "train.eval_every=4", "tracking=none", "loss=bce",
]  # fmt: skip


def images_per_s(folder: Path, slots: int, threads: int, cores: int) -> float:
    """Of all runs together, from the epochs after the first, without starting and evaluating."""
    folder.mkdir()
    seeds = ",".join(str(seed) for seed in range(cores))
    started_from_nothing(folder, "train", "-m", *RUN, f"seed={seeds}", f"hydra.launcher.slots={slots}",
             f"hydra.launcher.threads={threads}")  # fmt: skip
    rates = [
        json.loads(line)["metrics"]["time/images_per_s"]
        for run in run_folders(folder)
        for line in (run / "metrics.jsonl").read_text().splitlines()[1:]
    ]
    return slots * sum(rates) / len(rates)


@pytest.mark.bench
def test_one_run_per_core_against_one_run_of_all_cores(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        pytest.skip("one core: there is nothing to choose")
    many = images_per_s(tmp_path / "many", cores, 1, cores)
    one = images_per_s(tmp_path / "one", 1, cores, cores)
    print(
        f"\n{cores} runs x 1 thread {many:.0f} images/s, 1 run x {cores} threads {one:.0f}: {many / one:.2f}"
    )
    assert many > 0 and one > 0
