"""Confirming a choice: the two finalists of a study, trained on fresh seeds, and the test split read once.

The best of many arms looks better than it is, because it was chosen for looking good. So the
choice is written down first, then both finalists are trained on seeds that took no part in it,
and only then is the test split opened, for these runs and no others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.machine import resolve_device, set_up_torch
from ablation.records import PlannedRun
from ablation.study.plan_file import plan_file
from ablation.study.relaunch import launch_arguments
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan, study_folder
from ablation.training.evaluate import EvaluationSettings, evaluate
from ablation.training.trained_run import load_run


@dataclass(frozen=True)
class Choice:
    """What is to be confirmed, written down before anything of it is trained.

    Attributes:
        study: that the finalists were chosen in.
        finalists: arm names: the best of the others, then the best BCE.
        seeds: fresh ones.
        metric: by which they were chosen.
        time_ms: when, since 1970.
    """

    study: str
    finalists: tuple[str, str]
    seeds: tuple[int, ...]
    metric: str
    time_ms: int

    @property
    def name(self) -> str:
        """The study of the confirmation."""
        return f"{self.study}_confirm"

    def same_as(self, other: Choice) -> bool:
        """Equal in everything but when."""
        return (self.finalists, self.seeds, self.metric) == (other.finalists, other.seeds, other.metric)


def choice_file(out: Path, study: str) -> Path:
    """runs/<study>/confirm.json."""
    return study_folder(out, study) / "confirm.json"


def read_choice(folder: RunFolder, name: str = "confirm.json") -> Choice | None:
    """The choice that was written down, None where there is none."""
    row = folder.read_json(name)
    if not row:
        return None
    return Choice(row["study"], tuple(row["finalists"]), tuple(row["seeds"]), row["metric"], row["time_ms"])


def fix_choice(
    out: Path, study: str, finalists: tuple[str, str], seeds: Sequence[int], metric: str, used: set[int]
) -> Choice:
    """Write the choice down, or find the same one there.

    Args:
        used: seeds of the study, which had a part in the choice.

    Raises:
        UsageError: a seed is not fresh, or another choice was confirmed before: a second look at
            the test split would be a choice by the test split.
    """
    stale = sorted(used & set(seeds))
    if stale:
        shown = ", ".join(map(str, stale))
        raise UsageError(
            f"seeds: {shown} took part in the choice; give seeds that study {study} has not used"
        )
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise UsageError(f"seeds={','.join(map(str, seeds))}: give at least two different seeds")
    path = choice_file(out, study)
    choice = Choice(study, finalists, tuple(seeds), metric, round(time.time() * 1000))
    former = read_choice(RunFolder(path.parent))
    if former is None:
        write_json(path, vars(choice))
        return choice
    if not former.same_as(choice):
        shown = ",".join(map(str, former.seeds))
        raise UsageError(
            f"{path}: this study's confirmation was fixed before, as {former.finalists[0]} against "
            f"{former.finalists[1]} by {former.metric} on seeds={shown}; go on with those seeds. Another "
            "choice after the test split was read would be chosen by it: ask a new study instead"
        )
    return former


def arguments(choice: Choice, planned: Sequence[PlannedRun], out: Path, extra: Sequence[str]) -> list[str]:
    """The arguments of `ablation train` for the confirmation: two arms, the fresh seeds.

    Raises:
        AblationError: a finalist is not in the study's plan.
    """
    known = {run.arm: run for run in planned}
    for arm in choice.finalists:
        if arm not in known:
            raise AblationError(f"study {choice.study}: its plan has no arm {arm!r}; launch the study again")
    return launch_arguments(
        {arm: known[arm] for arm in choice.finalists},
        choice.seeds,
        study=choice.name,
        out=out,
        description=f"The finalists of study {choice.study} on fresh seeds.",
        analysis={"metric": choice.metric.replace("val/", "test/")},
        extra=extra,
    )


def read_test(choice: Choice, out: Path, store: Store | None) -> int:
    """Evaluate every finished run of the confirmation on the test split; returns how many there are.

    Nothing is read before all of them have ended: else a look at the first could decide about the
    others. A run that was evaluated is not evaluated again.

    Raises:
        AblationError: a run of the confirmation has not ended.
        UsageError, DataError: the data set has no test split, or it is damaged.
    """
    planned = read_plan(plan_file(out, choice.name)).runs
    folders = [RunFolder.of(out, choice.name, run.arm, run.seed, run.key) for run in planned]
    open_ones = [folder for folder in folders if folder.state not in ("FINISHED", "DIVERGED")]
    if open_ones:
        raise AblationError(
            f"{len(open_ones)} of {len(folders)} runs of {choice.name} have not ended "
            f"({open_ones[0].path}: {open_ones[0].state}); the test split is read when all have"
        )
    finished = [folder for folder in folders if folder.state == "FINISHED"]
    for folder in finished:
        if not any("test/AP" in line["metrics"] for line in folder.metrics()):
            _evaluate(folder)
        Mirror(store, folder).finish(folder.artifacts())
    return len(finished)


def _evaluate(folder: RunFolder) -> None:
    run = load_run(folder)
    train = run.config.train
    set_up_torch(train.threads, train.deterministic)
    device = resolve_device(train.device)
    settings = EvaluationSettings.of(train, device)
    evaluation = evaluate(run.network.to(device), run.config.data.open_test(), run.classes, settings)
    folder.write_json("detections/test_ground_truth.json", evaluation.ground_truth)
    folder.write_json("detections/test.json", evaluation.results)
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in evaluation.metrics.items()}
    folder.append_metrics(train.epochs, metrics)
