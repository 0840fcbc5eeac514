"""Small trainings for the doctor: composed like any run, on batches made here, in a temporary folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablation.config import RunConfig, register, typed
from ablation.data.loader import Batch
from ablation.errors import UsageError
from ablation.machine import precision_for, set_up_torch
from ablation.rng import generator
from ablation.study.command_line import config_root, explain, prepared
from ablation.tracking.run_folder import RunFolder
from ablation.training.run import Run

SMALL_DATA = ("data=shapes", "data.cache=none", "tracking=none", "train.diagnostics=false")


def composed(overrides: list[str]) -> DictConfig:
    """What `ablation train` would compose, without its sweeper and launchers, which load more packages.

    Raises:
        UsageError: one line, for an override that is not understood.
    """
    register()
    store = ConfigStore.instance()
    for group, name in (("hydra/sweeper", "study"), ("hydra/launcher", "local")):
        if f"{name}.yaml" not in store.repo.get("hydra", {}).get(group.partition("/")[2], {}):
            store.store(group=group, name=name, node={"_target_": "none"}, provider="ablation")
    GlobalHydra.instance().clear()
    root = config_root()
    search = f"hydra.searchpath=[file://{root},file://{Path.cwd()}]"
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3", job_name="ablation"):
            return compose("train", [*prepared(overrides, multirun=True), search])
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error)) from error


def resolved_precision(config: DictConfig, device: str) -> str:
    """The precision of a composed configuration, `auto` replaced."""
    name = str(config.train.precision)
    return precision_for(torch.device(device))[0] if name == "auto" else name


@contextmanager
def small_run(overrides: list[str], device: str, folder: Path | None = None) -> Iterator[Run]:
    """A run that is built and not trained; its folder is gone afterwards where it is not given."""
    config = composed([*SMALL_DATA, *overrides, f"train.device={device}"])
    config.train.precision = resolved_precision(config, device)
    run_config = typed(config)
    train = run_config.train
    set_up_torch(train.threads, train.deterministic, fixed_size=train.multi_scale is None)
    with tempfile.TemporaryDirectory(prefix="ablation-doctor-") as temporary:
        yield run_of(run_config, folder or Path(temporary))


def run_of(config: RunConfig, folder: Path) -> Run:
    """The run of a typed configuration, its data opened."""
    return Run(config, config.data.open(), RunFolder(folder), lambda epoch, metrics: None)


def synthetic_batch(run: Run, index: int = 0, objects: int = 5) -> Batch:
    """Noise with boxes on it, the same on every machine: from rng.py alone, without OpenCV's drawing."""
    train = run.config.train
    size_px, images, classes = train.size_px, train.batch_size, len(run.data.classes)
    random = generator(0, "doctor", 0, index)
    pixels = random.integers(0, 256, (images, 3, size_px, size_px), np.uint8)
    sides = random.uniform(0.1, 0.5, (images, objects, 2))
    centres = random.uniform(0.25, 0.75, (images, objects, 2))
    boxes = (np.concatenate([centres, sides], axis=2) * size_px).astype(np.float32)
    return Batch(
        torch.from_numpy(pixels),
        torch.from_numpy(boxes),
        torch.from_numpy(random.integers(0, classes, (images, objects))),
        torch.ones(images, objects, dtype=torch.bool),
        torch.arange(images),
    )


def images_per_second(run: Run, limit_s: float, warm_up: int = 2, least: int = 2, most: int = 1000) -> float:
    """Speed of training steps on one batch that is on the device already: no loading, no augmentation."""
    run.model.train()
    batch = synthetic_batch(run).to(run.device)
    for index in range(warm_up):
        run.step(batch, 0, index)
    wait(run.device)
    began, steps = time.perf_counter(), 0
    while steps < least or (time.perf_counter() - began < limit_s and steps < most):
        run.step(batch, 0, warm_up + steps)
        steps += 1
        if steps % 10 == 0:
            wait(run.device)
    wait(run.device)
    return steps * len(batch.images) / (time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def relative(measured: float, expected: float) -> float:
    """|measured - expected| / |expected|; infinite where either is not finite."""
    if not np.isfinite(measured) or not np.isfinite(expected):
        return float("inf")
    return abs(measured - expected) / max(abs(expected), 1e-12)


def largest_difference(measured: dict[str, Any], expected: dict[str, Any]) -> tuple[float, str]:
    """The largest relative difference of two sets of numbers, and which one has it."""
    return max((relative(float(measured[name]), float(value)), name) for name, value in expected.items())
