"""Studies with known arm means and noise, made without training anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from ablation.files import sha256_text
from ablation.records import PlannedRun, RunRecord, StudyRecord
from ablation.rng import generator

Arm = tuple[str, dict[str, str]]


def bce(pos_weight: float | None = None) -> Arm:
    """(arm's name, loss parameters) of a BCE arm."""
    name = "bce" if pos_weight is None else f"bce-pos_weight={pos_weight:g}"
    return name, {"loss.name": "bce", "loss.pos_weight": str(pos_weight)}


def focal(alpha: float | None, gamma: float) -> Arm:
    """(arm's name, loss parameters) of a focal arm."""
    name = "focal" + ("" if alpha is None else f"-alpha={alpha:g}") + f"-gamma={gamma:g}"
    return name, {"loss.name": "focal", "loss.alpha": str(alpha), "loss.gamma": str(float(gamma))}


def run(
    arm: Arm, seed: int, value: float, state: str = "FINISHED", epochs: Sequence[int] = (5, 10, 15, 20),
    reason: str = "", key: str | None = None, run_id: str | None = None, study: str = "synthetic",
    extra: Mapping[str, str] | None = None, fingerprint: str = "0" * 32,
) -> RunRecord:  # fmt: skip
    """One record whose last val/AP is `value` and whose curve rises to it."""
    name, params = arm
    key = key or sha256_text(f"{name} {seed}")
    noise = generator(seed, f"curve {name}").normal(0, 0.01, len(epochs))
    curve = [value * (0.35 + 0.65 * (i + 1) / len(epochs)) + noise[i] for i in range(len(epochs) - 1)]
    points = [("val/AP", epoch, v) for epoch, v in zip(epochs, [*curve, value], strict=True)]
    points += [("train/loss", epoch, 3.0 / epoch) for epoch in range(1, epochs[-1] + 1)]
    history = pd.DataFrame(
        {"epoch": [p[1] for p in points], "metric": [p[0] for p in points], "value": [p[2] for p in points]}
    )
    return RunRecord(
        run_id=run_id or f"{key[:12]}", study=study, arm=name, seed=seed, key=key, state=state,
        params={**params, "seed": str(seed), "optim.lr": "0.01", "train.epochs": str(epochs[-1])}
        | dict(extra or {}),
        metrics={"val/AP": value, "val/AP50": min(1.0, value * 1.6), "train/loss": 3.0 / epochs[-1],
                 "val/AP_recalibrated": value + 0.004 * (params["loss.name"] != "bce"),
                 "val/AP_small": value * 0.6, "val/AP_large": value * 1.2,
                 "val/AP_class/red $cell": value * 1.1, "val/AP_class/white_cell": value * 0.9},
        history=history, folder=f"runs/{study}/{name}/seed{seed}-{key[:8]}", reason=reason,
        fingerprint=fingerprint,
    )  # fmt: skip


def study(
    means: Sequence[tuple[Arm, float]], seeds: Sequence[int], sd_seed: float = 0.02,
    sd_noise: float = 0.01, name: str = "synthetic", stream: str = "synthetic",
) -> StudyRecord:  # fmt: skip
    """value(arm, seed) = mean(arm) + N(0, sd_seed) shared by the arms of a seed + N(0, sd_noise)."""
    runs, planned = [], []
    for index, (arm, mean) in enumerate(means):
        for seed in seeds:
            shared = generator(seed, f"{stream} seed").normal(0, sd_seed)
            own = generator(seed, f"{stream} own", index=index).normal(0, sd_noise)
            record = run(arm, seed, mean + shared + own, study=name)
            runs.append(record)
            loss = arm[1]
            overrides = " ".join(f"{k.removesuffix('.name')}={v}" for k, v in loss.items() if v != "None")
            command = f"ablation train {overrides} seed={seed} study={name}"
            planned.append(PlannedRun(arm[0], seed, record.key, command))
    return StudyRecord(name, runs, planned, "a study made for a test")


def grid(
    seeds: Sequence[int], alphas: Sequence[float | None] = (None, 0.25, 0.75),
    gammas: Sequence[float] = (0.0, 0.5, 1.0, 2.0), base: float = 0.40,
) -> StudyRecord:  # fmt: skip
    """BCE and a grid of focal arms; AP falls with gamma, and alpha=0.25 loses more."""
    arms: list[tuple[Arm, float]] = [(bce(), base)]
    for alpha in alphas:
        for gamma in gammas:
            arms.append(
                (focal(alpha, gamma), base + 0.01 - 0.02 * gamma - (0.02 * gamma if alpha == 0.25 else 0))
            )
    return study(arms, seeds)


def with_state(record: StudyRecord, arm: str, seed: int, state: str, reason: str = "") -> StudyRecord:
    """The study with one run in another state; MISSING takes its record away."""
    runs = []
    for item in record.runs:
        if (item.arm, item.seed) == (arm, seed):
            if state == "MISSING":
                continue
            item = dataclasses.replace(item, state=state, reason=reason)
        runs.append(item)
    return dataclasses.replace(record, runs=runs)
