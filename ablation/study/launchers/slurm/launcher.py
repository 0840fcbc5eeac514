"""Runs as jobs of a Slurm cluster: hydra/launcher=slurm.

One job for each run, submitted through submitit. Whether a run is done is read in its own folder,
whether its job is alive is asked of Slurm's controller, and which job is whose stands in
<study>/slurm/jobs.json: the submitting process, and its machine, may go away at any time.
"""

from __future__ import annotations

import importlib.util
import logging
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ablation.config.trainer import COMMAND
from ablation.errors import AblationError, UsageError, one_line, require
from ablation.files import safe_name
from ablation.study.execute import Prepared, prepare, store_of
from ablation.study.launchers.local.launcher import job_config
from ablation.study.launchers.slurm import queue as slurm_queue
from ablation.study.launchers.slurm.job import run_job
from ablation.study.launchers.slurm.registry import Submitted, submitting, write_jobs
from ablation.study.terminal import progress as observer
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES
from ablation.tracking.store import Store
from ablation.tracking.study_folder import study_folder

log = logging.getLogger(__name__)


@dataclass
class SlurmLauncherConf:
    """Settings of the Slurm launcher; those of one job where nothing else is said.

    Attributes:
        partition: null: the cluster's default one.
        time_h: time limit in hours; Slurm counts whole minutes.
        mem_gb: memory; null: the cluster's default.
        gpus: GPUs, 0 or 1.
        cpus: cores, which are also the threads of torch.
        max_parallel: jobs of this study that run at a time.
        notice_s: how long before the time limit a job is told to stop and to go back to the queue;
            Slurm may tell it up to a minute earlier.
        max_requeues: how often it may.
        wait: follow the jobs to their end; false: submit and leave.
        poll_s: seconds between two looks at the queue while waiting.
        setup: lines of shell before the job's command, such as `module load cuda`.
        sbatch: any further sbatch options by their long names, such as {account: vision}.
    """

    _target_: str = "ablation.study.launchers.slurm.launcher.SlurmLauncher"
    partition: str | None = None
    time_h: float = 12.0
    mem_gb: float | None = None
    gpus: int = 0
    cpus: int = 1
    max_parallel: int = 16
    notice_s: int = 90
    max_requeues: int = 10
    wait: bool = True
    poll_s: float = 10.0
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Watched:
    index: int
    run: Prepared
    job: Submitted
    began: bool = False
    epochs: int = 0
    absent: int = 0


class SlurmLauncher(Launcher):
    """One job for each run. The arguments are SlurmLauncherConf's.

    Raises:
        UsageError: a setting is out of range, or submitit or Slurm is missing.
    """

    def __init__(self, **settings: Any) -> None:
        self.conf = SlurmLauncherConf(**{k: _plain(v) for k, v in settings.items()})
        conf = self.conf
        try:
            require(conf.time_h * 60 >= 1, "time_h", conf.time_h, "at least a minute")
            require(conf.mem_gb is None or conf.mem_gb > 0, "mem_gb", conf.mem_gb, "> 0, or null")
            require(conf.gpus in (0, 1), "gpus", conf.gpus, "0 or 1: a run uses one")
            for name in ("cpus", "max_parallel", "notice_s"):
                require(getattr(conf, name) >= 1, name, getattr(conf, name), ">= 1")
            least = f"at least a minute more than notice_s ({conf.notice_s} s)"
            require(conf.time_h * 3600 >= conf.notice_s + 60, "time_h", conf.time_h, least)
            require(conf.max_requeues >= 0, "max_requeues", conf.max_requeues, ">= 0")
            require(conf.poll_s > 0, "poll_s", conf.poll_s, "> 0")
        except ValueError as error:
            raise UsageError(f"hydra.launcher.{error}") from None
        if importlib.util.find_spec("submitit") is None:
            raise UsageError(
                "hydra/launcher=slurm needs submitit: pip install 'yolov4-focal-ablation[slurm]'"
            )
        missing = [name for name in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(name) is None]
        if missing:
            raise UsageError(
                f"hydra/launcher=slurm: {missing[0]} not found; launch from a machine of the cluster, or "
                "leave hydra/launcher out to run here"
            )

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what no living job trains already; then wait, unless told not to."""
        configs = [job_config(self.hydra_context, self.config, overrides) for overrides in job_overrides]
        runs = []
        for config, overrides in zip(configs, job_overrides, strict=True):
            if config.train.threads is None:
                config.train.threads = self.conf.cpus
            ours = config.trainer.name != COMMAND
            auto = ours and config.train.precision == "auto"
            if self.conf.gpus and auto and not torch.cuda.is_available():
                raise UsageError(
                    "train.precision=auto would be decided by this machine, which has no GPU: say "
                    "train.precision=bf16 or train.precision=fp32"
                )
            runs.append(prepare(config, list(overrides)))
            config.train.precision = runs[-1].config.train.precision
        folder = (study_folder(Path(runs[0].config.out), runs[0].config.study) / "slurm").resolve()
        jobs = self._submit(folder, runs, configs)
        watched = [_Watched(index, run, jobs[run.key]) for index, run in enumerate(runs)]
        if not self.conf.wait:
            out = "" if runs[0].config.out == "runs" else f" out={runs[0].config.out}"
            log.info("left to Slurm; look again with: ablation status study=%s%s", runs[0].config.study, out)
            return [_returned(item, "SUBMITTED") for item in watched]
        return self._follow(watched, store_of(runs[0].config))

    def _submit(self, folder: Path, runs: list[Prepared], configs: list[DictConfig]) -> dict[str, Submitted]:
        with submitting(folder) as jobs:
            alive = slurm_queue.living(job.job for job in jobs.values() if job.job is not None)
            new = [i for i, run in enumerate(runs) if run.key not in jobs or jobs[run.key].job not in alive]
            old = len(runs) - len(new)
            if old:
                log.info("%d runs have a job already, waiting or running", old)
            if not new:
                return dict(jobs)
            name = f"ablation-{safe_name(runs[0].config.study)[:40]}-{uuid.uuid4().hex[:8]}"
            for place, i in enumerate(new):
                index = place if len(new) > 1 else None
                jobs[runs[i].key] = Submitted(runs[i].label, name, index)
            # Before sbatch: a launcher killed right after it finds its jobs again by their name.
            write_jobs(folder, jobs)
            executor = self._executor(folder, name)
            try:
                with executor.batch():
                    for i in new:
                        content, run = OmegaConf.to_yaml(configs[i]), runs[i]
                        executor.submit(
                            run_job, content, list(run.overrides), run.key, self.conf.max_requeues
                        )
            except Exception as error:
                for i in new:
                    del jobs[runs[i].key]
                write_jobs(folder, jobs)
                raise AblationError(f"sbatch refused the study: {one_line(error, 300)}") from None
            job = slurm_queue.job_named(name)
            if job is None:
                raise AblationError(f"Slurm does not know the job {name} that it took; see squeue")
            for i in new:
                jobs[runs[i].key] = jobs[runs[i].key].confirmed(job, folder)
            write_jobs(folder, jobs)
            log.info("submitted %d runs as job %s (%s)", len(new), job, name)
            return dict(jobs)

    def _executor(self, folder: Path, name: str) -> Any:
        import submitit

        conf = self.conf
        # exec, and no srun: the job's shell becomes the run itself, so that B: signals reach it alone
        # and not the processes that load its data, and its death is the job's.
        executor = submitit.SlurmExecutor(folder=folder, python=f"exec {shlex.quote(sys.executable)}")
        extra = {"signal": f"B:USR2@{conf.notice_s}", "requeue": True} | conf.sbatch
        if conf.mem_gb is not None:
            extra = {"mem": f"{max(1, round(conf.mem_gb * 1024))}M"} | extra
        if conf.gpus:
            extra = {"gres": f"gpu:{conf.gpus}"} | extra
        executor.update_parameters(
            job_name=name,
            time=int(conf.time_h * 60),
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=conf.cpus,
            array_parallelism=conf.max_parallel,
            stderr_to_stdout=True,
            use_srun=False,
            setup=list(conf.setup),
            additional_parameters=extra,
            **({} if conf.partition is None else {"partition": conf.partition}),
        )
        return executor

    def _follow(self, watched: list[_Watched], store: Store | None) -> list[JobReturn]:
        """Wait until no job is alive; what became of a run stands in its folder."""
        infos = [
            observer.JobInfo(item.index, item.run.label, item.run.config.train.epochs) for item in watched
        ]
        watching = observer.make_observer(infos)
        returns: dict[int, JobReturn] = {}
        next_look = 0.0
        try:
            while len(returns) < len(watched):
                if time.monotonic() < next_look:
                    watching.tick()
                    time.sleep(min(0.5, self.conf.poll_s))
                    continue
                next_look = time.monotonic() + self.conf.poll_s
                left = [item for item in watched if item.index not in returns]
                try:
                    alive = slurm_queue.living(str(item.job.job) for item in left)
                except AblationError as error:
                    log.warning("%s", error)  # the jobs do not depend on it
                    continue
                for item in left:
                    ended = self._look(item, str(item.job.job) in alive, watching, store)
                    if ended is not None:
                        returns[item.index] = ended
        except KeyboardInterrupt:
            ids = sorted(
                {str(item.job.job).partition("_")[0] for item in watched if item.index not in returns}
            )
            log.info("the jobs go on without this process; to end them: scancel %s", " ".join(ids))
            raise
        finally:
            watching.close()
        return [returns[item.index] for item in watched]

    def _look(
        self, item: _Watched, alive: bool, watching: observer.Observer, store: Store | None
    ) -> JobReturn | None:
        """Tell what is new of a run; its return once it has ended."""
        folder, label = item.run.folder, item.run.label
        if not item.began and folder.state == "RUNNING":
            item.began = True
            watching.started(item.index, label, Path(item.job.log))
        # By number: a command may write a line in every fifth epoch only.
        for line in [line for line in folder.metrics() if line["epoch"] > item.epochs]:
            item.epochs = line["epoch"]
            watching.epoch(item.index, line["epoch"], item.run.config.train.epochs, line["metrics"])
        state = folder.state
        item.absent = 0 if alive else item.absent + 1
        if state in (*DONE_STATES, "STOPPED"):
            watching.ended(item.index, label, state, True)
            return _returned(item, state)
        # Twice: the last state of a run may reach this machine later than the end of its job.
        if item.absent < 2:
            return None
        if state in ("FAILED", "KILLED"):
            message = folder.reason
        else:
            message, own_fault = slurm_queue.exit_reason(str(item.job.job))
            if state == "RUNNING":  # it could not say so itself, and Slurm is certain that it is dead
                folder.set_state("FAILED" if own_fault else "KILLED", message)
                Mirror(store, folder).finish([])
        message = f"{message} (log: {item.job.log})"
        watching.ended(item.index, label, message, False)
        return _returned(item, None, message)


def _returned(item: _Watched, state: str | None, message: str = "") -> JobReturn:
    result = JobReturn(overrides=list(item.run.overrides))
    if state is None:
        result.status, result.return_value = JobStatus.FAILED, AblationError(message)
    else:
        result.status, result.return_value = JobStatus.COMPLETED, state
    return result


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def register() -> None:
    """Make the launcher known to Hydra under hydra/launcher=slurm."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="ablation"
    )
