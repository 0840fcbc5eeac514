"""Training what a stage of `settle` needs, with the launcher of any study, and reading what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.errors import AblationError
from ablation.records import PlannedRun, StudyRecord
from ablation.study import app
from ablation.study.plan_file import plan_file
from ablation.study.relaunch import launch_arguments
from ablation.tracking.folder_record import folder_of, study_of_folders
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_folder import read_plan

TIMES = ("time/train_s", "time/eval_s", "time/diagnostics_s")
"""Metrics that add up to the time of an epoch, in seconds."""


@dataclass(frozen=True)
class Stage:
    """A study of `settle`: where its runs lie and how they are launched.

    Attributes:
        study: its name.
        description: of the study, for people.
        arms: arm -> a planned run of it, from which the settings are taken.
        extra: further overrides of `ablation train`, such as the launcher or train.device.
    """

    study: str
    description: str
    out: Path
    arms: Mapping[str, PlannedRun]
    extra: Sequence[str]

    def launch(self, arms: Sequence[str], seeds: Sequence[int], analysis: Mapping[str, object]) -> None:
        """Train these arms on these seeds; what has ended is left alone.

        Args:
            analysis: what the study declares, key below `analysis` -> value.

        Raises:
            AblationError: a run failed; it names each.
        """
        app.main(
            launch_arguments(
                {arm: self.arms[arm] for arm in arms},
                seeds,
                study=self.study,
                out=self.out,
                description=self.description,
                analysis=analysis,
                extra=self.extra,
            )
        )

    def record(self) -> StudyRecord:
        """Its runs so far, from their folders."""
        return study_of_folders(self.out, self.study)

    def folders(self) -> dict[tuple[str, int], RunFolder]:
        """(arm, seed) -> the folder of that run, for every run launched so far."""
        plan = read_plan(plan_file(self.out, self.study))
        return {(run.arm, run.seed): folder_of(self.out, self.study, run) for run in plan.runs}

    def results(self, metric: str) -> dict[tuple[str, int], float | None]:
        """(arm, seed) -> the last value of the metric, None where the run diverged; finished runs only.

        Raises:
            AblationError: a run finished without a finite value, which another launch would not change.
        """
        results: dict[tuple[str, int], float | None] = {}
        for place, folder in self.folders().items():
            state = folder.state
            if state == "DIVERGED":
                results[place] = None
            elif state == "FINISHED":
                logged: dict[str, float] = {}
                for line in folder.metrics():
                    logged |= line["metrics"]
                value = logged.get(metric, math.nan)
                if not math.isfinite(value):
                    names = ", ".join(sorted(name for name in logged if name.startswith("val/"))[:6])
                    raise AblationError(
                        f"{folder.path}: finished without a finite {metric}; analysis.metric must be "
                        f"one that every run logs, such as {names}"
                    )
                results[place] = float(value)
        return results

    def hours(self) -> float:
        """Time in training, evaluation and diagnostics of all runs so far, in hours of one slot."""
        total = 0.0
        for folder in self.folders().values():
            for line in folder.metrics():
                total += sum(line["metrics"].get(name, 0.0) for name in TIMES)
        return total / 3600
