"""How long a study would take on this machine, from a few real steps of its first configuration."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ablation.commands.doctor.lines import Line, Settings
from ablation.commands.doctor.together import start_line, together
from ablation.commands.doctor.training import composed, resolved_precision, run_of
from ablation.config import RunConfig, typed
from ablation.config.trainer import COMMAND
from ablation.errors import AblationError, one_line
from ablation.machine import set_up_torch, share_out
from ablation.study.expand import expand
from ablation.study.pace import clock, makespan_s
from ablation.training.timing import evaluated_image_s, training_image_s

COPIES = 8


def look(settings: Settings) -> Iterator[Line]:
    """One line: runs, slots, time. The data set of the study must be at hand."""
    overrides = [f"sweeps={settings.sweep}", *settings.overrides]
    try:
        yield _forecast(overrides, settings)
    except AblationError as error:
        remedy = "give the study's data as `ablation plan` takes them, as in data=voc data.root=DIR"
        yield Line(f"sweeps={settings.sweep}", "failed", one_line(error, 250), remedy)


def _forecast(overrides: list[str], settings: Settings) -> Line:
    config = composed(overrides)
    runs = number_of_runs(config)
    if config.trainer.name == COMMAND:
        text = "a trainer of the study's own: its first run tells how long it takes"
        return Line(f"sweeps={settings.sweep}", "skipped", text)
    typed(config).data.open()  # what is wrong with it is to be said once, and not by every copy
    gpus = torch.cuda.device_count() if settings.on_gpu else 0
    slots, threads = share_out(None, config.train.threads, 1, gpus, len(os.sched_getaffinity(0)))
    at_once = min(slots, runs)
    copies = 1 if settings.on_gpu else min(at_once, COPIES)
    costs = together(copies, _run_s, overrides, settings.device, threads)
    run_s = sum(costs) / copies
    wall_s = makespan_s([run_s] * runs, slots)
    text = f"about {clock(wall_s)}: {runs} runs of {clock(run_s)}, {at_once} at a time"
    rest = "arms that change the network or its input cost more or less; `ablation plan` tells them apart"
    values = {"wall_s": wall_s, "run_s": run_s, "runs": runs, "slots": slots}
    return Line(f"sweeps={settings.sweep}", "ok", f"{text} ({rest})", values=values)


def number_of_runs(config: DictConfig) -> int:
    """Arms times seeds of a composed study."""
    arms: Any = OmegaConf.to_container(config.arms) if config.arms is not None else None
    jobs = expand(arms, {}, [], lambda loss, field: True)
    return len(jobs) * (len(config.seeds) if config.seeds is not None else 1)


def _run_s(overrides: list[str], device: str, threads: int) -> float:
    """Seconds of one run of the study's own configuration, while the other copies run as well."""
    config = composed([*overrides, f"train.device={device}", "tracking=none"])
    config.train.precision, config.train.threads = resolved_precision(config, device), threads
    run_config: RunConfig = typed(config)
    train = run_config.train
    set_up_torch(threads, train.deterministic, fixed_size=train.multi_scale is None)
    with tempfile.TemporaryDirectory(prefix="ablation-doctor-") as folder:
        began = time.perf_counter()
        run = run_of(run_config, Path(folder))
        run.prepare()
        start_s = time.perf_counter() - began
        start_line()
        train_s, eval_s = training_image_s(run), evaluated_image_s(run)
        images = run.steps_per_epoch * train.batch_size
        evaluations = -(-train.epochs // train.eval_every)
        return start_s + train.epochs * images * train_s + evaluations * len(run.data.val) * eval_s
