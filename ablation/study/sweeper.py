"""The sweeper: turns a study into runs, leaves out what is done, launches the rest, sums up."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ablation.config import RunConfig, arm_name, typed
from ablation.errors import AblationError, UsageError, counted, one_line
from ablation.study.execute import Prepared, announce, prepare, store_of
from ablation.study.expand import Job, expand, override_text
from ablation.study.halving import check_rungs, prune
from ablation.study.run_status import run_status
from ablation.study.same_command import StartedCommands
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES

log = logging.getLogger(__name__)


@dataclass
class StudySweeperConf:
    """Hydra's configuration of the sweeper: nothing to set, the study's file says it all."""

    _target_: str = "ablation.study.sweeper.StudySweeper"


class StudySweeper(Sweeper):
    """Union of the arms' grids x seeds; finished keys are skipped; one failure stops nothing else."""

    ended: ClassVar[RunConfig | None] = None
    """Of the last study that came to its end in this process; Hydra hands nothing back from a sweep."""

    launched: ClassVar[RunConfig | None] = None
    """Of the last study that was launched in this process, whatever became of it."""

    def __init__(self) -> None:
        self.config: Any = None
        self.hydra_context: Any = None
        self.launcher: Any = None
        self.store: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[str]:
        """Run the study; returns the final state of every run that had to be launched.

        Raises:
            UsageError, DataError: before anything is started.
            AblationError: after everything has ended, if a run failed; names each.
        """
        runs = self.plan(arguments)
        first = runs[0].config
        if first.halving.enabled:
            check_rungs(runs)
            if self.config.hydra.launcher.get("wait") is False:
                raise UsageError("hydra.launcher.wait=false: halving waits for each rung; set it to true")
        self.store = store_of(first)
        announce(runs, self.store)
        StudySweeper.launched = first
        statuses = {run.key: run_status(run.folder) for run in runs}
        todo = [run for run in runs if statuses[run.key] in launched_statuses(first)]
        log.info("study %s: %s", first.study, _counts_text(runs, Counter(statuses.values()), len(todo)))
        returns = self._launch_in_stages(runs, todo)
        self._sum_up(runs, todo, returns)
        StudySweeper.ended = first
        return [run.folder.state for run in todo]

    def plan(self, arguments: list[str]) -> list[Prepared]:
        """Every run of the study, typed and keyed, each key once; starts nothing."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides(arguments)
        sweep: dict[str, list[str]] = {}
        fixed: dict[str, str] = {}
        for override in parsed:
            key = override.get_key_element()
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise UsageError(f"{override.input_line}: give the values as a list, a,b,c or range(...)")
                sweep[key] = list(override.sweep_string_iterator())
            else:
                fixed[key] = str(override.input_line)
        seeds = self._seeds(sweep, fixed)
        arms: Any = OmegaConf.to_container(self.config.arms) if self.config.arms is not None else None
        jobs = expand(arms, sweep, fixed, self._loss_has_field)
        runs: dict[str, Prepared] = {}
        started = StartedCommands()
        for job in jobs:
            for seed in seeds:
                run = self._prepare(list(fixed.values()), job, seed, jobs)
                started.add(run)
                runs.setdefault(run.key, run)
        self._check_labels(list(runs.values()))
        return list(runs.values())

    def _seeds(self, sweep: dict[str, list[str]], fixed: dict[str, str]) -> list[str]:
        """The command line's seeds, else the study's, else the one of the configuration."""
        if "seed" in sweep:
            return sweep.pop("seed")
        if "seed" in fixed:
            return [fixed.pop("seed").split("=", 1)[1]]
        seeds = self.config.seeds
        if seeds is None:
            return [str(self.config.seed)]
        if len(seeds) == 0:
            raise UsageError("seeds: an empty list; give at least one seed")
        return [str(seed) for seed in seeds]

    def _loss_has_field(self, loss: str, field: str) -> bool:
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, [f"loss={loss}"])
        return field in composed.loss

    def _prepare(self, fixed: list[str], job: Job, seed: str, jobs: list[Job]) -> Prepared:
        overrides = [*fixed, *job.overrides(), f"seed={seed}"]
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        composed = _without_hydra(composed)
        label = self._label(composed, job, jobs)
        overrides.append(f"arm={override_text(label)}")
        composed.arm = label
        return prepare(composed, overrides)

    def _label(self, composed: DictConfig, job: Job, jobs: list[Job]) -> str:
        """The arm's name: its own, or the loss with its settings, and whatever else its grid varies."""
        settings = dict(job.settings)
        if job.label is not None:
            named_keys = list(job.varied)
            parts = [job.label]
        else:
            # A key counts as varied where any two jobs of the study differ in it.
            values: dict[str, set[str | None]] = {
                key: {dict(other.settings).get(key) for other in jobs} for key in settings
            }
            named_keys = [
                key
                for key in settings
                if key != "loss" and not key.startswith("loss.") and len(values[key]) > 1
            ]
            parts = [arm_name(typed(composed))]
        return "-".join(parts + [f"{key}={settings[key]}" for key in named_keys])

    def _check_labels(self, runs: list[Prepared]) -> None:
        """One arm and seed, one configuration: else the two could not be told apart in any table."""
        seen: dict[tuple[str, int], str] = {}
        for run in runs:
            place = (str(run.config.arm), run.config.seed)
            if seen.setdefault(place, run.key) != run.key:
                raise UsageError(
                    f"arm {place[0]!r}: two different configurations have this name; give them `arm:`"
                )

    def _launch_in_stages(self, runs: list[Prepared], todo: list[Prepared]) -> dict[str, JobReturn]:
        """All at once, or with halving rung by rung; by key, how each run's last stage ended."""
        halving = runs[0].config.halving
        if not halving.enabled:
            return self._launch(todo)
        returns: dict[str, JobReturn] = {}
        going = list(todo)
        for rung in halving.rungs:
            # A run that is beyond this rung would not stop there.
            stage = [run for run in going if run.folder.checkpoint_epoch < rung]
            log.info("halving: %d runs to epoch %d", len(stage), rung)
            returns |= self._launch(stage, stop_after=rung)
            ended = {run.key for run in stage if not _went_well(returns[run.key])}
            pruned = {run.key for run in prune(runs, rung, self.store)}
            going = [
                run
                for run in going
                if run.key not in ended | pruned and run.folder.state not in (*DONE_STATES, "PRUNED")
            ]
        log.info("halving: %d runs to the end", len(going))
        return returns | self._launch(going)

    def _launch(self, todo: list[Prepared], stop_after: int | None = None) -> dict[str, JobReturn]:
        if not todo:
            return {}
        launcher: Launcher = self.launcher
        stop = [] if stop_after is None else [f"train.stop_after={stop_after}"]
        ended = launcher.launch([[*run.overrides, *stop] for run in todo], initial_job_idx=0)
        return {run.key: result for run, result in zip(todo, ended, strict=True)}

    def _sum_up(self, runs: list[Prepared], todo: list[Prepared], returns: dict[str, JobReturn]) -> None:
        """Name what did not end well; a run that was killed could not write its state itself.

        Raises:
            AblationError: a run failed, now or before.
        """
        failures = []
        for run in todo:
            ended = returns.get(run.key)
            folder = run.folder
            if ended is None or _went_well(ended) or folder.state in DONE_STATES:
                continue
            if folder.in_training:  # another launcher was faster by a moment
                log.info("%s: another process is training it", run.label)
                continue
            message = one_line(ended._return_value, 300)
            if folder.state == "RUNNING":
                folder.set_state("FAILED" if _crashed(message) else "KILLED", message)
                Mirror(self.store, folder).finish([])
            failures.append(f"{run.label}: {one_line(message, 200)}")
        states = Counter("to do" if run.folder.state == "MISSING" else run.folder.state for run in runs)
        study = runs[0].config.study
        log.info("study %s: %s", study, ", ".join(f"{n} {state}" for state, n in sorted(states.items())))
        for run in runs:
            if run.folder.state == "DIVERGED":
                log.warning("%s: DIVERGED (%s)", run.label, run.folder.reason)
        launched = {run.key for run in todo}
        failed_before = [run for run in runs if run.folder.state == "FAILED" and run.key not in launched]
        if failures:
            redo = any(run.folder.state == "FAILED" for run in runs)
            earlier = f"; and {len(failed_before)} failed before" if failed_before else ""
            retry = ", failed runs are redone with retry=failed" if redo else ""
            raise AblationError(
                f"{len(failures)} of {counted(len(runs), 'run')} failed: {_first_three(failures)}{earlier}"
                f". Launch the same command again to go on; what is done is kept{retry}"
            )
        if failed_before:
            reasons = [f"{run.label}: {one_line(run.folder.reason, 200)}" for run in failed_before]
            raise AblationError(
                f"{len(failed_before)} of {counted(len(runs), 'run')} FAILED before and were left alone: "
                f"{_first_three(reasons)}; retry=failed redoes them"
            )


def _counts_text(runs: list[Prepared], counts: Counter[str], to_do: int) -> str:
    """4 arms, 12 runs, 3 done already, 9 to do, 1 running elsewhere."""
    config = runs[0].config
    arms = len({run.config.arm for run in runs})
    done = counts["finished"] + counts["diverged"]
    not_launched = {
        "running elsewhere": counts["running"],
        "failed before, left alone (retry=failed redoes them)": 0 if config.retry else counts["failed"],
        "pruned before": counts["pruned"] if config.halving.enabled else 0,
    }
    rest = "".join(f", {number} {reason}" for reason, number in not_launched.items() if number)
    return f"{counted(arms, 'arm')}, {counted(len(runs), 'run')}, {done} done already, {to_do} to do{rest}"


def launched_statuses(config: RunConfig) -> set[str]:
    """The statuses of runs that a launch takes up."""
    return (
        {"to do", "interrupted"}
        | ({"failed"} if config.retry == "failed" else set())
        | (set() if config.halving.enabled else {"pruned"})
    )


def _went_well(ended: JobReturn) -> bool:
    return ended.status == JobStatus.COMPLETED


_CRASHES = re.compile(r"\bSIG(SEGV|ABRT|BUS|FPE|ILL|SYS)\b|\bexited with code\b")


def _crashed(message: str) -> bool:
    """Whether a run that left no word ended by its own fault, and not because someone killed it.

    A killed one is interrupted and goes on when launched again; one that crashed would crash again.
    """
    return _CRASHES.search(message) is not None


def _first_three(texts: list[str]) -> str:
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _without_hydra(config: DictConfig) -> DictConfig:
    copy = config.copy()
    OmegaConf.set_struct(copy, False)
    OmegaConf.set_readonly(copy, False)
    copy.pop("hydra", None)
    return copy


def register() -> None:
    """Make the sweeper known to Hydra under hydra/sweeper=study."""
    ConfigStore.instance().store(
        group="hydra/sweeper", name="study", node=StudySweeperConf, provider="ablation"
    )
