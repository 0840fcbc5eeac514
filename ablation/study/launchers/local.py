"""The default launcher: each run in its own process on this machine, several at a time.

A run that exits, crashes or is killed costs itself alone. Processes come from a fork server that
has imported torch but never used it, so each starts at once and none inherits another's threads.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ablation.errors import AblationError, UsageError, one_line
from ablation.files import safe_name

log = logging.getLogger(__name__)


@dataclass
class LocalLauncherConf:
    """Settings of the local pool.

    Attributes:
        slots: runs at a time; null: one per GPU, else one per core (two runs of one thread were
            faster than one run of two on the machines measured).
        threads: CPU threads of each run; null: the cores divided by the slots.
    """

    _target_: str = "ablation.study.launchers.local.LocalLauncher"
    slots: int | None = None
    threads: int | None = None


@dataclass
class _Child:
    index: int
    label: str
    process: Any
    pipe: Connection
    log: Path


class LocalLauncher(Launcher):
    """A pool of processes, `slots` at a time."""

    def __init__(self, slots: int | None = None, threads: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0))
        gpus = torch.cuda.device_count()
        self.gpus = gpus
        self.slots = slots if slots is not None else (gpus or cores)
        self.threads = threads if threads is not None else max(1, cores // self.slots)
        if self.slots < 1 or self.threads < 1:
            raise UsageError("hydra.launcher.slots and hydra.launcher.threads must be at least 1")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; never raises for a job, its JobReturn says what happened."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ablation.study.execute"])
        returns = [JobReturn(overrides=list(overrides)) for overrides in job_overrides]
        jobs = [self._job(overrides) for overrides in job_overrides]
        waiting = list(enumerate(jobs))
        running: list[_Child] = []
        free = list(range(self.slots))
        place: dict[int, int] = {}
        self._finished, self._total = 0, len(jobs)
        try:
            while waiting or running:
                while waiting and free:
                    index, job = waiting.pop(0)
                    slot = free.pop(0)
                    place[index] = slot
                    running.append(self._start(context, index, job, list(job_overrides[index]), slot))
                for child in self._wait(running):
                    running.remove(child)
                    free.append(place[child.index])
                    returns[child.index] = self._end(child, returns[child.index])
        except BaseException:
            self._stop(running)
            raise
        return returns

    def _job(self, overrides: Sequence[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        OmegaConf.set_struct(config, False)
        OmegaConf.set_readonly(config, False)
        with open_dict(config):
            config.pop("hydra", None)
            if config.train.threads is None:
                config.train.threads = self.threads
        return config

    def _start(self, context: Any, index: int, job: DictConfig, overrides: list[str], slot: int) -> _Child:
        if self.gpus and job.train.device == "auto":
            job.train.device = f"cuda:{slot % self.gpus}"
        label = f"{job.arm} seed {job.seed}"
        folder = Path(job.out) / safe_name(str(job.study)) / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{safe_name(str(job.arm))}-seed{job.seed}.log"
        ours, theirs = context.Pipe(duplex=False)
        content = OmegaConf.to_yaml(job)
        process = context.Process(target=_child, args=(content, overrides, theirs, str(path)), name=label)
        process.start()
        theirs.close()
        log.info("started  %s", label)
        return _Child(index, label, process, ours, path)

    def _wait(self, running: list[_Child]) -> list[_Child]:
        """Show progress until at least one child has ended; returns those."""
        while True:
            ready = wait([child.pipe for child in running] + [child.process.sentinel for child in running])
            for child in running:
                if child.pipe in ready:
                    self._show(child)
            ended = [child for child in running if child.process.sentinel in ready]
            if ended:
                return ended

    def _show(self, child: _Child) -> None:
        with contextlib.suppress(EOFError, OSError):
            while child.pipe.poll():
                kind, value = child.pipe.recv()
                if kind == "epoch":
                    epoch, epochs, metrics = value
                    if "val/AP" in metrics:
                        log.info(
                            "[%d/%d done] %s: epoch %d/%d  val/AP %.3f  val/AP50 %.3f  %.0f images/s",
                            self._finished, self._total, child.label, epoch, epochs,
                            metrics["val/AP"], metrics["val/AP50"], metrics["time/images_per_s"],
                        )  # fmt: skip
                else:
                    child.process.outcome = (kind, value)
            return
        # The child closed its end; without this the pipe would stay ready for ever.
        time.sleep(0.05)

    def _end(self, child: _Child, result: JobReturn) -> JobReturn:
        self._show(child)
        child.process.join()
        child.pipe.close()
        self._finished += 1
        kind, value = getattr(child.process, "outcome", ("died", None))
        code = child.process.exitcode
        if kind == "state":
            result.status, result.return_value = JobStatus.COMPLETED, value
            log.info("finished %s: %s", child.label, value)
            return result
        if kind == "error":
            message = str(value)
        elif code is not None and code < 0:
            message = f"killed by {signal.Signals(-code).name}"
        else:
            message = f"exited with code {code}"
        message = f"{message} (log: {child.log})"
        log.error("FAILED   %s: %s", child.label, message)
        result.status, result.return_value = JobStatus.FAILED, AblationError(message)
        return result

    def _stop(self, running: list[_Child]) -> None:
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGTERM)
        for child in running:
            child.process.join(30)
            if child.process.is_alive():
                child.process.kill()


def _child(content: str, overrides: list[str], pipe: Connection, path: str) -> None:
    """The body of a run's process."""
    os.setsid()  # a Ctrl-C in the terminal reaches the launcher alone, which then ends the runs
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    import traceback

    from ablation.study.execute import execute, prepare, store_of

    try:
        run = prepare(cast(DictConfig, OmegaConf.create(content)), overrides)

        def progress(epoch: int, metrics: dict[str, float]) -> None:
            try:
                pipe.send(("epoch", (epoch, run.config.train.epochs, metrics)))
            except BrokenPipeError:
                raise KeyboardInterrupt from None  # the launcher is gone; nobody waits for this run

        pipe.send(("state", execute(run, store_of(run.config), progress)))
    except AblationError as error:
        logging.getLogger(__name__).error("%s", error)
        pipe.send(("error", str(error)))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        with contextlib.suppress(BrokenPipeError):
            pipe.send(("error", "interrupted"))
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        pipe.send(("error", one_line(f"{type(error).__name__}: {error}", 300)))
        sys.exit(1)


def register() -> None:
    """Make the launcher known to Hydra under hydra/launcher=local."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="local", node=LocalLauncherConf, provider="ablation"
    )
