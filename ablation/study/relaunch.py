"""Launching some arms of a planned study again: other seeds, another study, the same settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablation.records import PlannedRun
from ablation.study.expand import override_text

OF_THE_STUDY = (
    "study",
    "seed",
    "seeds",
    "arm",
    "arms",
    "description",
    "retry",
    "replace",
    "halving",
    "notify",
    "out",
)
"""Keys of a run's command that a launch sets itself."""


def overrides_of(run: PlannedRun) -> list[str]:
    """What the run was asked for with, without what belongs to its study."""
    words = shlex.split(run.command)[2:]
    return [word for word in words if word.partition("=")[0].lstrip("+~") not in OF_THE_STUDY]


def launch_arguments(
    runs: Mapping[str, PlannedRun],
    seeds: Sequence[int],
    *,
    study: str,
    out: Path,
    description: str,
    analysis: Mapping[str, object],
    extra: Sequence[str] = (),
) -> list[str]:
    """The arguments of `ablation train` that train these arms on these seeds.

    Args:
        runs: arm -> a planned run with its settings.
        analysis: key below `analysis` -> value that the study declares.
        extra: further overrides, such as train.device or hydra/launcher.
    """
    words = {arm: overrides_of(run) for arm, run in runs.items()}
    shared = [word for word in next(iter(words.values())) if all(word in each for each in words.values())]
    arms = [_arm_text(arm, [word for word in each if word not in shared]) for arm, each in words.items()]
    return [
        "-m",
        *shared,
        f"arms=[{','.join(arms)}]",
        f"seeds=[{','.join(map(str, seeds))}]",
        f"study={override_text(study)}",
        f"out={override_text(str(out))}",
        *(f"analysis.{key}={override_text(value)}" for key, value in analysis.items()),
        f"description={override_text(description)}",
        *extra,
    ]


def _arm_text(arm: str, words: Sequence[str]) -> str:
    pairs = [f"arm: {override_text(arm)}"]
    for word in words:
        key, _, value = word.partition("=")
        pairs.append(f"{key}: {value}")
    return "{" + ", ".join(pairs) + "}"
