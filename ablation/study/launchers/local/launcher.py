"""The default launcher: each run in its own process on this machine, several at a time.

A run that exits, crashes, hangs or is killed costs itself alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ablation.errors import AblationError, UsageError, require
from ablation.machine import share_out
from ablation.study.launchers.local.pool import Limits, Pool, Task
from ablation.study.terminal import progress as observer
from ablation.tracking.credentials import without_credentials
from ablation.tracking.study_folder import run_log


@dataclass
class LocalLauncherConf:
    """Settings of the local pool.

    Attributes:
        slots: runs at a time; null: GPUs x runs_per_gpu, or without GPUs one per core (on two cores
            two runs of one thread were faster than one run of two).
        threads: CPU threads of each run; null: the cores divided by the slots.
        runs_per_gpu: runs that share one GPU.
        timeout_h: hours that a run may take; it is then stopped, resumable. null: any time.
        stall_h: hours that a run may take for one epoch; null: any time.
        grace_s: seconds between a run's being asked to stop and its being killed.
        oom_retries: how often a run that ran out of memory is tried again, unchanged, when the
            others are done and nothing else runs on its GPU (without GPUs: on this machine).
    """

    _target_: str = "ablation.study.launchers.local.launcher.LocalLauncher"
    slots: int | None = None
    threads: int | None = None
    runs_per_gpu: int = 1
    timeout_h: float | None = None
    stall_h: float | None = None
    grace_s: float = 30.0
    oom_retries: int = 1


class LocalLauncher(Launcher):
    """A pool of processes, `slots` at a time. The arguments are LocalLauncherConf's."""

    def __init__(
        self,
        slots: int | None = None,
        threads: int | None = None,
        runs_per_gpu: int = 1,
        timeout_h: float | None = None,
        stall_h: float | None = None,
        grace_s: float = 30.0,
        oom_retries: int = 1,
    ) -> None:
        try:
            require(slots is None or slots >= 1, "slots", slots, ">= 1, or null")
            require(threads is None or threads >= 1, "threads", threads, ">= 1, or null")
            require(runs_per_gpu >= 1, "runs_per_gpu", runs_per_gpu, ">= 1")
            require(timeout_h is None or timeout_h > 0, "timeout_h", timeout_h, "> 0, or null")
            require(stall_h is None or stall_h > 0, "stall_h", stall_h, "> 0, or null")
            require(grace_s >= 0, "grace_s", grace_s, ">= 0")
            require(oom_retries >= 0, "oom_retries", oom_retries, ">= 0")
        except ValueError as error:
            raise UsageError(f"hydra.launcher.{error}") from None
        self._slots, self._threads, self._runs_per_gpu = slots, threads, runs_per_gpu
        self.limits = Limits(
            None if timeout_h is None else timeout_h * 3600,
            None if stall_h is None else stall_h * 3600,
            grace_s,
            oom_retries,
        )

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; never raises for a job, its JobReturn says what happened."""
        configs = [job_config(self.hydra_context, self.config, overrides) for overrides in job_overrides]
        cpu_only = bool(configs) and all(str(config.train.device) == "cpu" for config in configs)
        gpus = 0 if cpu_only else torch.cuda.device_count()
        cores = len(os.sched_getaffinity(0))
        slots, threads = share_out(self._slots, self._threads, self._runs_per_gpu, gpus, cores)
        tasks = []
        for index, config in enumerate(configs):
            if config.train.threads is None:
                config.train.threads = threads
            tasks.append(
                Task(
                    index=index,
                    label=label_of(config),
                    content=OmegaConf.to_yaml(config),
                    overrides=list(job_overrides[index]),
                    log=log_file(config),
                    auto_device=str(config.train.device) == "auto",
                )
            )
        watching = observer.make_observer(
            [
                observer.JobInfo(task.index, task.label, int(config.train.epochs))
                for task, config in zip(tasks, configs, strict=True)
            ]
        )
        try:
            outcomes = Pool(slots, gpus, self.limits, watching).run(tasks)
        finally:
            watching.close()
        returns = []
        for task in tasks:
            outcome = outcomes[task.index]
            result = JobReturn(overrides=task.overrides)
            if outcome.state is not None:
                result.status, result.return_value = JobStatus.COMPLETED, outcome.state
            else:
                result.status, result.return_value = JobStatus.FAILED, AblationError(outcome.message)
            returns.append(result)
        return returns


def job_config(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed configuration of one job, without Hydra's own part, free to be edited."""
    job = context.config_loader.load_sweep_config(config, list(overrides))
    OmegaConf.set_struct(job, False)
    OmegaConf.set_readonly(job, False)
    with open_dict(job):
        job.pop("hydra", None)
    tracking: Any = OmegaConf.to_container(job.tracking, resolve=False)  # an interpolation stays one
    if tracking["uri"] is not None:  # from a YAML file: a job's configuration may be written to disk
        job.tracking.uri = without_credentials(tracking["uri"])
    return job


def label_of(job: DictConfig) -> str:
    """A job as a person names it."""
    return f"{job.arm} seed {job.seed}"


def log_file(job: DictConfig) -> Path:
    """What a job's process writes to; its folder is created."""
    log = run_log(Path(job.out), str(job.study), str(job.arm), int(job.seed))
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def register() -> None:
    """Make the launcher known to Hydra under hydra/launcher=local."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="local", node=LocalLauncherConf, provider="ablation"
    )
