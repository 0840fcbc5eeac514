"""What runs inside a Slurm job: one run, which makes room when it is told to."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

from omegaconf import DictConfig, OmegaConf

from ablation.errors import AblationError
from ablation.study.execute import execute, prepare, store_of
from ablation.study.launchers.slurm import queue as slurm_queue

log = logging.getLogger(__name__)

MAKE_ROOM = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent some time before the time limit, or by an administrator: stop, and go on later."""


class _Order:
    """The first signal that asked the run to stop, which then ends as after Ctrl-C."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in (*MAKE_ROOM, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:  # more of them come while the run ends; they must not disturb that
            self.signal = signal.Signals(number)
            raise KeyboardInterrupt

    @property
    def reason(self) -> str:
        """For the run's state."""
        if self.signal in MAKE_ROOM:
            return (
                f"made room ({self.signal.name}: time limit or preemption); goes on when its job runs again"
            )
        return "its job was cancelled or preempted; launch it again to go on from the last checkpoint"


def run_job(content: str, overrides: list[str], key: str, max_requeues: int) -> str:
    """Train one run; returns its final state. Called by submitit, in the job.

    Args:
        content: the composed configuration, as YAML.
        key: the run's key where it was submitted. The job must find the same one.
        max_requeues: how often the job may go back into the queue.

    Raises:
        AblationError: what made the run fail.
        SystemExit: it stopped to make room.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout, force=True
    )
    order = _Order()
    try:
        run = prepare(cast(DictConfig, OmegaConf.create(content)), overrides)
        if run.key != key:
            raise AblationError(
                f"this node finds key {run.key[:8]} where {key[:8]} was submitted: its data, weights or "
                "version of this package are not the same"
            )
        log.info("%s: job %s on %s", run.label, _job_id(), os.uname().nodename)
        job_log = Path("/proc/self/fd/1").resolve()
        output = job_log if job_log.is_file() else None
        return execute(run, store_of(run.config), stop_reason=lambda: order.reason, output=output)
    except AblationError as error:
        log.error("%s", error)
        raise
    except KeyboardInterrupt:
        _make_room(order, max_requeues)


def _make_room(order: _Order, max_requeues: int) -> NoReturn:
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if order.signal not in MAKE_ROOM:
        log.info("stopped by %s", order.signal.name if order.signal is not None else "Ctrl-C")
    elif restarts >= max_requeues:
        log.warning("stopped to make room; not requeued: it was %d times already", restarts)
    else:
        refusal = slurm_queue.requeue(_job_id())
        log.info("stopped to make room; %s", f"not requeued: {refusal}" if refusal else "requeued")
    sys.exit(130)


def _job_id() -> str:
    """As scontrol takes it: of an array's task, the array's id and the task's number."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "?")
