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

from ablation.analyse.statistics.paired import MIN_PAIRS
from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.records import Declaration, PlannedRun
from ablation.study.relaunch import launch_arguments
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_folder import study_folder


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


def choose(
    out: Path, study: str, finalists: tuple[str, str], seeds: Sequence[int], metric: str, used: set[int]
) -> Choice:
    """The choice to confirm; the one that was written down before, where it is the same. Writes nothing.

    Args:
        used: seeds of the study, which had a part in the choice.

    Raises:
        UsageError: a seed is not fresh, there are too few to decide anything, or another choice was
            confirmed before: a second look at the test split would be a choice by the test split.
    """
    if stale := sorted(used & set(seeds)):
        numbers = ", ".join(map(str, stale))
        raise UsageError(
            f"seeds: {numbers} took part in the choice; give seeds that study {study} has not used"
        )
    choice = Choice(study, finalists, tuple(seeds), metric, round(time.time() * 1000))
    path = choice_file(out, study)
    former = read_choice(RunFolder(path.parent))
    if former is not None and former.same_as(choice):
        return former
    if former is not None:
        numbers = ",".join(map(str, former.seeds))
        raise UsageError(
            f"{path}: this study's confirmation was fixed before, as {former.finalists[0]} against "
            f"{former.finalists[1]} by {former.metric} on seeds={numbers}; go on with those seeds. Another "
            "choice after the test split was read would be chosen by it: ask a new study instead"
        )
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds={','.join(map(str, seeds))}: each seed once")
    if len(seeds) < MIN_PAIRS:
        raise UsageError(
            f"seeds={','.join(map(str, seeds))}: {len(seeds)} of them can never decide; {MIN_PAIRS} are the "
            "least, and `ablation plan` says how many tell"
        )
    return choice


def keep_choice(choice: Choice, out: Path) -> None:
    """Write the choice down, before anything of it is trained."""
    write_json(choice_file(out, choice.study), vars(choice))


def arguments(
    choice: Choice,
    planned: Sequence[PlannedRun],
    out: Path,
    extra: Sequence[str],
    declared: Declaration | None = None,
) -> list[str]:
    """The arguments of `ablation train` for the confirmation: two arms, the fresh seeds.

    Args:
        declared: what the study declared; its margin and level hold for the confirmation too.

    Raises:
        AblationError: a finalist is not in the study's plan.
    """
    known = {run.arm: run for run in planned}
    for arm in choice.finalists:
        if arm not in known:
            raise AblationError(f"study {choice.study}: its plan has no arm {arm!r}; launch the study again")
    terms: dict[str, object] = {"looks": None, "prior_sd": None}  # one comparison, planned for all seeds
    terms |= {} if declared is None else {"margin": declared.margin, "level": declared.level}
    return launch_arguments(
        {arm: known[arm] for arm in choice.finalists},
        choice.seeds,
        study=choice.name,
        out=out,
        description=f"The finalists of study {choice.study} on fresh seeds.",
        analysis={"metric": choice.metric.replace("val/", "test/")} | terms,
        extra=extra,
    )
