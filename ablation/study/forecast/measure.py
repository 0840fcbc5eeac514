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
from ablation.data.dataset import Image, Split
from ablation.errors import AblationError
from ablation.machine import resolve_device, set_up_torch
from ablation.study.execute import Prepared, open_data
from ablation.study.forecast.costs import Cost
from ablation.tracking.run_folder import RunFolder
from ablation.training.evaluate import evaluate
from ablation.training.run import Run

WARM_UP = 2
LEAST_STEPS, MOST_STEPS, ENOUGH_S = 3, 30, 10.0
"""After the warm-up: steps until ENOUGH_S have passed, but at least and at most so many."""
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
        train_s = _steps(run)
        part = _FirstImages(data.val, config.train.eval_batch_size)
        began = time.perf_counter()
        evaluate(run.network, part, data.classes, run.evaluation_settings)
        return train_s, (time.perf_counter() - began) / len(part), start_s


def _steps(run: Run) -> float:
    """Seconds for one training image, loading included."""
    train, loader = run.config.train, run.train_loader()
    run.model.freeze_backbone(train.freeze_backbone_epochs > 0)
    run.model.train()
    done, began, last = 0, time.perf_counter(), 0.0
    with loader:
        for epoch in range(train.epochs):
            for index, batch in enumerate(loader.epoch(epoch)):
                metrics = run.step(batch.to(run.device), epoch, index)
                float(metrics["loss"].detach())  # waits for the device
                done += 1
                last = time.perf_counter()
                if done == WARM_UP:
                    began = last
                steps = done - WARM_UP
                if steps >= MOST_STEPS or (steps >= LEAST_STEPS and last - began > ENOUGH_S):
                    return (last - began) / steps / train.batch_size
    steps = max(1, done - WARM_UP) if done > WARM_UP else done
    return (last - began) / steps / train.batch_size


class _FirstImages(Split):
    """The first images of a split, but enough of them to have an object."""

    def __init__(self, split: Split, count: int) -> None:
        with_objects = (i for i, example in enumerate(split.examples) if not example.ignored.all())
        first = next(with_objects, len(split) - 1)
        self._split = split
        self.examples = split.examples[: max(count, first + 1)]
        self.faults = []

    def read(self, index: int) -> Image:
        """Of the split itself."""
        return self._split.read(index)

    def fingerprint(self) -> str:
        """Of the split itself."""
        return self._split.fingerprint()
