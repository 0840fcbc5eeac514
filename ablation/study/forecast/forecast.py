"""What a study would do: which runs, how long, how much disk, and how noisy they are. Starts nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablation.analyse.tables.baseline import RunSetting, baseline_of
from ablation.config import AnalysisConfig, RunConfig
from ablation.errors import StoreError
from ablation.machine import share_out
from ablation.records import StudyData
from ablation.study.execute import Prepared, shared_data
from ablation.study.forecast.costs import Bytes, Cost, Shape, computed_bytes, device_of, earlier, needed_bytes
from ablation.study.pace import makespan_s
from ablation.study.plan_file import OtherData, other_data, plan_file, refuse_renamed
from ablation.study.run_status import RunStatus, planned_run_status
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan


@dataclass(frozen=True)
class Capacity:
    """What the launcher would use.

    Attributes:
        slots: runs at a time.
        threads: CPU threads of each run that does not set its own.
    """

    slots: int
    threads: int


@dataclass(frozen=True)
class Noise:
    """Spread of what an arm differs from the baseline by, on the same seed.

    Attributes:
        sd: standard deviation of the paired differences about their arm's mean, pooled over arms.
        pairs: differences that it is made from.
        arms: arms with at least two of them.
    """

    sd: float
    pairs: int
    arms: int


@dataclass(frozen=True)
class StudyPlan:
    """A study before it runs.

    Attributes:
        runs: how each stands; left_s is the estimate for a run that would be launched.
        capacity: of the launcher.
        costs: of the shapes for which they are known.
        unknown: shapes for which they are not.
        wall_s: until the last run ends; None where the cost of a run is not known.
        machine_s: the sum over runs; likewise.
        disk_needed, disk_free: bytes; what the runs will add, and what is there now.
        disk_source: where the sizes come from.
        seeds: number of seeds of each arm.
        noise: from runs that this study has finished already; None where they are too few.
        analysis: what the study declares.
        data: that the runs would have.
        other_data: runs that the study has of other data; None: a launch would not be refused for them.
        replace: whether they would leave the plan.
    """

    study: str
    runs: list[RunStatus]
    capacity: Capacity
    costs: dict[Shape, Cost]
    unknown: list[Shape]
    wall_s: float | None
    machine_s: float | None
    disk_needed: int
    disk_free: int
    disk_source: str
    seeds: dict[str, int]
    noise: Noise | None
    analysis: AnalysisConfig
    data: StudyData
    other_data: OtherData | None
    replace: bool


def capacity_of(launcher: Mapping[str, Any], runs: list[Prepared]) -> Capacity:
    """What the launcher with these settings would use on this machine.

    A launcher that runs elsewhere is taken to run everything at once, unless its settings say how many.
    """
    if "slots" in launcher:
        cpu_only = all(run.config.train.device == "cpu" for run in runs)
        gpus = 0 if cpu_only else torch.cuda.device_count()
        cores = len(os.sched_getaffinity(0))
        per_gpu = launcher.get("runs_per_gpu", 1)
        return Capacity(*share_out(launcher["slots"], launcher["threads"], per_gpu, gpus, cores))
    return Capacity(launcher.get("max_parallel") or len(runs), launcher.get("cpus") or 1)


def shape_of(run: Prepared, capacity: Capacity) -> Shape:
    """What the run's cost depends on."""
    threads = run.config.train.threads or capacity.threads
    return Shape.of(run.planned.params, device_of(run.config), threads)


def plan_study(
    runs: list[Prepared], capacity: Capacity, launched: set[str], measured: Mapping[Shape, Cost] | None = None
) -> StudyPlan:
    """Collect the facts. Reads folders only.

    Args:
        launched: statuses that a launch would take up, see sweeper.launched_statuses.
        measured: costs that go before those of earlier runs.

    Raises:
        UsageError: the study's folder was renamed.
    """
    first = runs[0].config
    out, data = Path(first.out), shared_data(runs)
    refuse_renamed(out, first.study)
    shapes = {run.key: shape_of(run, capacity) for run in runs}
    costs, sizes = earlier(out, set(shapes.values()))
    costs |= dict(measured or {})
    present = [planned_run_status(out, first.study, run.planned, first.analysis.metric) for run in runs]
    statuses = []
    for run, status in zip(runs, present, strict=True):
        cost = costs.get(shapes[run.key])
        if status.status in launched:
            left = None if cost is None else cost.left_s(run.config, run.data, status.epoch)
            status = dataclasses.replace(status, left_s=left)
        statuses.append(status)
    todo = [run for run in statuses if run.status in launched]
    times = [run.left_s for run in todo]
    known = [time for time in times if time is not None]
    complete = len(known) == len(times)
    needed, source = _disk(runs, statuses, shapes, sizes, launched)
    seeds: dict[str, int] = {}
    for status in statuses:
        seeds[status.arm] = seeds.get(status.arm, 0) + 1
    return StudyPlan(
        study=first.study,
        runs=statuses,
        capacity=capacity,
        costs={shape: costs[shape] for shape in dict.fromkeys(shapes.values()) if shape in costs},
        unknown=[shape for shape in dict.fromkeys(shapes[run.key] for run in todo) if shape not in costs],
        wall_s=makespan_s(known, capacity.slots) if complete else None,
        machine_s=sum(known) if complete else None,
        disk_needed=needed,
        disk_free=shutil.disk_usage(_existing(out)).free,
        disk_source=source,
        seeds=seeds,
        noise=noise_of(runs, first.analysis.metric),
        analysis=first.analysis,
        data=data,
        other_data=other_data(out, first.study, read_plan(plan_file(out, first.study)), data),
        replace=first.replace,
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _disk(
    runs: list[Prepared],
    statuses: list[RunStatus],
    shapes: Mapping[str, Shape],
    sizes: dict[Shape, Bytes],
    launched: set[str],
) -> tuple[int, str]:
    total, sources = 0, []
    for run, status in zip(runs, statuses, strict=True):
        if status.status not in launched:
            continue
        shape = shapes[run.key]
        if shape not in sizes:
            sizes[shape] = computed_bytes(run.config, run.data)
        checkpoints = len(list(run.folder.path.glob("checkpoint-*-*.pt")))
        tracking = run.config.tracking
        copied = tracking.enabled and Store.of(tracking.uri, tracking.artifacts).sqlite_file is not None
        total += needed_bytes(sizes[shape], checkpoints, copied)
        sources.append(sizes[shape].source)
    return total, " and ".join(dict.fromkeys(sources))


def noise_of(runs: list[Prepared], metric: str) -> Noise | None:
    """From the last values of finished runs, each arm against the baseline on the same seeds.

    The baseline is that of the report, see analyse.tables.baseline.
    """
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        value = _final(run.folder, metric)
        if value is not None:
            values.setdefault(str(run.config.arm), {})[run.config.seed] = value
    baseline = baseline_of(_setting(run.config) for run in runs)
    if baseline is None:
        return None
    reference = values.get(baseline, {})
    squares, freedom, pairs, arms = 0.0, 0, 0, 0
    for arm, by_seed in values.items():
        differences = [by_seed[seed] - reference[seed] for seed in sorted(by_seed.keys() & reference.keys())]
        if arm != baseline and len(differences) >= 2:
            squares += statistics.variance(differences) * (len(differences) - 1)
            freedom += len(differences) - 1
            pairs += len(differences)
            arms += 1
    return Noise((squares / freedom) ** 0.5, pairs, arms) if freedom else None


def _setting(config: RunConfig) -> RunSetting:
    weight = getattr(config.loss, "pos_weight", None)
    gain = config.criterion.confidence_gain
    return RunSetting(str(config.arm), type(config.loss).name(), weight, gain)


def _final(folder: RunFolder, metric: str) -> float | None:
    try:
        if folder.state != "FINISHED":
            return None
        lines = folder.metrics()
    except (StoreError, OSError):
        return None
    value = lines[-1]["metrics"].get(metric) if lines else None
    return float(value) if value is not None and value == value else None
