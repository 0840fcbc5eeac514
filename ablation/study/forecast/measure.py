"""Time a few real steps and evaluated images of a configuration, as many copies at once as would run."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from ablation.config import RunConfig
from ablation.errors import AblationError
from ablation.machine import resolve_device, set_up_torch
from ablation.study.execute import Prepared, open_data
from ablation.study.forecast.costs import Cost
from ablation.tracking.run_folder import RunFolder
from ablation.training.run import Run
from ablation.training.timing import evaluated_image_s, training_image_s

COPIES = 8


def measure(run: Prepared, slots: int, threads: int) -> Cost:
    """Cost of runs of this shape on this machine.

    Args:
        slots: runs at a time; on a CPU so many copies are timed side by side, because they share it.
        threads: CPU threads of each.

    Raises:
        AblationError: the configuration cannot be trained here, for instance for want of memory.
    """
    copies = min(slots, COPIES) if run.config.train.device in ("auto", "cpu") and _on_cpu(run) else 1
    config = replace(run.config, train=replace(run.config.train, threads=threads))
    context = multiprocessing.get_context("forkserver")
    try:
        with ProcessPoolExecutor(copies, mp_context=context) as pool:
            timed = [future.result() for future in [pool.submit(_timed, config) for _ in range(copies)]]
    except BrokenProcessPool:
        raise AblationError(
            f"{run.label}: the process that was timed died; is there enough memory?"
        ) from None
    train_s, eval_s, start_s = (statistics.fmean(values) for values in zip(*timed, strict=True))
    beside = f", {copies} at a time" if copies > 1 else ""
    return Cost(train_s, eval_s, 0.0, start_s, f"measured on real steps{beside}")


def _on_cpu(run: Prepared) -> bool:
    return resolve_device(run.config.train.device).type == "cpu"


def _timed(config: RunConfig) -> tuple[float, float, float]:
    """Seconds for a training image, for a val image, and until training begins. Leaves nothing behind."""
    began = time.perf_counter()
    train = config.train
    set_up_torch(train.threads, train.deterministic, fixed_size=train.multi_scale is None)
    data = open_data(config.data)
    with tempfile.TemporaryDirectory(prefix="ablation-measure-") as folder:
        run = Run(config, data, RunFolder(Path(folder)), lambda epoch, metrics: None)
        run.prepare()
        start_s = time.perf_counter() - began
        return training_image_s(run), evaluated_image_s(run), start_s
