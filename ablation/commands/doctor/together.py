"""Several copies of one small run at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import torch

from ablation.commands.doctor.training import images_per_second, small_run, wait

Result = TypeVar("Result")
PATIENCE_S = 120

_all_ready: Barrier


def together(copies: int, call: Callable[..., Result], *arguments: Any) -> list[Result]:
    """What `call` returns in each of the copies; see `start_line` for a common start."""
    context = multiprocessing.get_context("spawn")  # children of this process: they end with its group
    barrier = context.Barrier(copies)
    with ProcessPoolExecutor(copies, context, initializer=_remember, initargs=(barrier,)) as pool:
        return [future.result() for future in [pool.submit(call, *arguments) for _ in range(copies)]]


def _remember(barrier: Barrier) -> None:
    global _all_ready
    _all_ready = barrier


def start_line() -> None:
    """Wait for the other copies."""
    _all_ready.wait(PATIENCE_S)


def step_speed(overrides: list[str], device: str, limit_s: float) -> float:
    """Images/s of one copy while the others run as well."""
    with small_run(overrides, device) as run:
        images_per_second(run, 0, warm_up=3)
        start_line()
        speed = images_per_second(run, limit_s, warm_up=0)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # the last ones are not to be alone
            images_per_second(run, 0, warm_up=0, least=5)
    wait(torch.device(device))
    return speed
