"""Processes: several runs at a time, each in its own process group, none able to harm another."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ablation.study.launchers.local import server
from ablation.study.launchers.local.child import run_child
from ablation.study.launchers.local.memory import kernel_kills
from ablation.study.terminal.progress import Observer

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted; launch it again to go on from the last checkpoint"


@dataclass(frozen=True)
class Task:
    """A run to start.

    Attributes:
        content: the composed configuration, as YAML.
        overrides: what it was asked for with.
        log: what its process writes to.
        auto_device: whether the launcher may choose the device.
    """

    index: int
    label: str
    content: str
    overrides: list[str]
    log: Path
    auto_device: bool


@dataclass(frozen=True)
class Outcome:
    """How a run's process ended.

    Attributes:
        state: FINISHED, DIVERGED or STOPPED where the run said so; None: it failed.
        message: one line, what went wrong and where its log is.
        memory: None, or where memory ran out: "device" (the run's own process said so) or "machine"
            (the kernel killed it).
    """

    state: str | None
    message: str = ""
    memory: str | None = None


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Attributes:
        timeout_s: seconds from its start; None: no limit.
        stall_s: seconds without finishing an epoch; None: no limit.
        grace_s: seconds between being asked to stop and being killed.
        oom_retries: how often a run that ran out of memory is tried again, alone.
    """

    timeout_s: float | None = None
    stall_s: float | None = None
    grace_s: float = 30.0
    oom_retries: int = 1


@dataclass
class _Child:
    task: Task
    slot: int
    process: Any
    pipe: Connection
    ended: int  # a descriptor that is readable once the process has ended
    kernel_kills: int | None
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    silent: bool = False
    result: tuple[str, Any] | None = None
    stop_reason: str = ""
    kill_at: float = math.inf


def place(slot: int, gpus: int) -> str | None:
    """The device of a slot: GPUs in turn, so that neighbours share one last; None without GPUs."""
    return f"cuda:{slot % gpus}" if gpus else None


class Pool:
    """Runs tasks, `slots` at a time.

    Args:
        slots: at least 1.
        gpus: how many there are to hand out; 0: everything is on the CPU.
    """

    def __init__(self, slots: int, gpus: int, limits: Limits, observer: Observer) -> None:
        self.slots, self.gpus, self.limits, self.observer = slots, gpus, limits, observer
        # The fork server has imported torch but never used it: a run starts at once, and none
        # inherits another's threads.
        self.context: Any = server.context()

    def run(self, tasks: Sequence[Task]) -> dict[int, Outcome]:
        """Run every task; the outcome of each by its index. Never raises for a task."""
        outcomes: dict[int, Outcome] = {}
        self._round(tasks, self.slots, self.limits.oom_retries, outcomes)
        for left in reversed(range(self.limits.oom_retries)):
            again = [task for task in tasks if outcomes[task.index].memory]
            # Alone: one run on each GPU, or one on the machine. The same configuration, to the letter.
            on_machine = not self.gpus or any(outcomes[task.index].memory == "machine" for task in again)
            self._round(again, 1 if on_machine else self.gpus, left, outcomes)
        return outcomes

    def _round(self, tasks: Sequence[Task], slots: int, retries: int, outcomes: dict[int, Outcome]) -> None:
        waiting, running, free = list(tasks), list[_Child](), list(range(slots))
        try:
            while waiting or running:
                while waiting and free:
                    task = waiting.pop(0)
                    child = self._start(task, free[0])
                    if isinstance(child, Outcome):
                        self._settle(task, child, retries, outcomes)
                    else:
                        free.pop(0)
                        running.append(child)
                for child in self._wait(running):
                    running.remove(child)
                    free.append(child.slot)
                    free.sort()
                    self._settle(child.task, self._end(child), retries, outcomes)
        except BaseException:
            self._stop(running)
            raise

    def _settle(self, task: Task, outcome: Outcome, retries: int, outcomes: dict[int, Outcome]) -> None:
        first_try = outcomes.get(task.index)
        if outcome.memory and retries:
            log.warning(
                "%s: %s; it is tried again when the others are done, alone", task.label, outcome.message
            )
        elif outcome.state is None:
            again = " (tried again alone after it ran out of memory)" if first_try is not None else ""
            outcome = Outcome(None, outcome.message + again, outcome.memory)
            self.observer.ended(task.index, task.label, outcome.message, False)
        else:
            again = ", alone, after it had run out of memory" if first_try is not None else ""
            self.observer.ended(task.index, task.label, outcome.state + again, True)
        outcomes[task.index] = outcome

    def _start(self, task: Task, slot: int) -> _Child | Outcome:
        content = task.content
        device = place(slot, self.gpus)
        if device is not None and task.auto_device:
            content = _with_device(content, device)
        for attempt in (1, 2):
            ours, theirs = self.context.Pipe(duplex=True)
            process = self.context.Process(
                target=run_child,
                args=(content, task.overrides, theirs, str(task.log), self.limits.grace_s, dict(os.environ)),
                name=task.label,
            )
            kills = kernel_kills()
            try:
                process.start()
                break
            except (OSError, EOFError) as error:  # the fork server was killed just now
                ours.close()
                if attempt == 2:
                    return Outcome(None, f"its process could not be started: {error} (log: {task.log})")
            finally:
                theirs.close()
        try:
            ended = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it has ended already
            ended, writing = os.pipe()
            os.close(writing)
        self.observer.started(task.index, task.label, task.log)
        return _Child(task, slot, process, ours, ended, kills)

    def _wait(self, running: list[_Child]) -> list[_Child]:
        """Show progress and mind the limits until at least one child has ended; returns those."""
        while running:
            pipes = [child.pipe for child in running if not child.silent]
            ready = wait([*pipes, *(child.ended for child in running)], timeout=self._patience(running))
            for child in running:
                if child.pipe in ready:
                    self._hear(child)
            ended = [child for child in running if child.ended in ready]
            if ended:
                return ended
            self.observer.tick()
            now = time.monotonic()
            for child in running:
                self._mind(child, now)
        return []

    def _patience(self, running: list[_Child]) -> float:
        limits = [limit for limit in (self.limits.timeout_s, self.limits.stall_s) if limit is not None]
        return min([0.5, *limits])

    def _hear(self, child: _Child) -> None:
        try:
            while child.pipe.poll():
                kind, value = child.pipe.recv()
                child.heard = time.monotonic()
                if kind == "epoch":
                    self.observer.epoch(child.task.index, *value)
                else:
                    child.result = (kind, value)
        except (EOFError, OSError):
            child.silent = True  # it has closed its end; its process will follow

    def _mind(self, child: _Child, now: float) -> None:
        """Stop a child that takes too long: first by asking, then by force, helpers included."""
        if child.stop_reason:
            if now >= child.kill_at:
                _kill_group(child.process.pid)
                child.kill_at = math.inf
            return
        timeout, stall = self.limits.timeout_s, self.limits.stall_s
        if timeout is not None and now - child.started > timeout:
            child.stop_reason = f"ran longer than timeout_h={timeout / 3600:.3g}"
        elif stall is not None and now - child.heard > stall:
            child.stop_reason = f"finished no epoch within stall_h={stall / 3600:.3g}"
        if child.stop_reason and child.result is None:
            child.kill_at = now + self.limits.grace_s
            self._ask_to_stop(child)

    def _ask_to_stop(self, child: _Child) -> None:
        with contextlib.suppress(OSError):
            child.pipe.send(child.stop_reason)
        # In case the listener itself is stuck or has not started yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, signal.SIGTERM)

    def _end(self, child: _Child) -> Outcome:
        self._hear(child)
        child.process.join(5)
        code = child.process.exitcode
        child.pipe.close()
        os.close(child.ended)
        _kill_group(child.process.pid)  # what it started and left behind
        kind, value = child.result if child.result is not None else ("died", None)
        if kind == "state":
            return Outcome(str(value))
        kills = kernel_kills()
        killed = kills is not None and child.kernel_kills is not None and kills > child.kernel_kills
        memory = "device" if kind == "memory" else None
        if child.stop_reason:
            forced = "" if code == 130 else ", did not stop when asked to and was killed"
            message = child.stop_reason + forced
        elif kind in ("error", "memory"):
            message = str(value)
            if killed and "killed by signal: Killed" in message:  # torch, of a helper that loads data
                memory = "machine"
        elif code is not None and code < 0:
            message = f"killed by {signal.Signals(-code).name}"
            if killed and -code == signal.SIGKILL:
                memory, message = "machine", "killed by the kernel: the machine was out of memory"
        elif code == 255:  # multiprocessing's code where the fork server did not answer
            message = "ended without a message; the process that starts the runs had been killed"
        else:
            message = f"exited with code {code} without a message"
        return Outcome(None, f"{message} (log: {child.task.log})", memory)

    def _stop(self, running: list[_Child]) -> None:
        """The launcher itself is to end: ask every child, wait, then use force."""
        for child in running:
            child.stop_reason = child.stop_reason or INTERRUPTED
            self._ask_to_stop(child)
        deadline = time.monotonic() + self.limits.grace_s
        left = {child.ended: child for child in running}
        while left and time.monotonic() < deadline:
            ready = wait(list(left), timeout=max(0.0, deadline - time.monotonic()))
            left = {descriptor: child for descriptor, child in left.items() if descriptor not in ready}
        for child in running:
            _kill_group(child.process.pid)


def _with_device(content: str, device: str) -> str:
    from omegaconf import DictConfig, OmegaConf

    config = OmegaConf.create(content)
    assert isinstance(config, DictConfig)
    config.train.device = device
    return OmegaConf.to_yaml(config)


def _kill_group(pid: int | None) -> None:
    """End a child's whole process group, of which the child itself is the leader."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
