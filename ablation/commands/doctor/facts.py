"""The machine: versions, device, precision, threads, memory, disk, store, MLflow."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import torch

from ablation.commands.doctor import packages
from ablation.commands.doctor.lines import Line, Settings
from ablation.commands.doctor.training import composed
from ablation.errors import one_line
from ablation.files import exclusive_lock, size_text
from ablation.machine import precision_for, share_out

GIB = 2**30


def look(settings: Settings) -> Iterator[Line]:
    """The facts, without computing anything."""
    yield _python()
    yield _torch()
    yield _device(settings)
    yield _precision(settings)
    yield _capacity(settings)
    yield _memory()
    yield from _places(settings)


def _python() -> Line:
    return Line("Python", "ok", platform.python_version())


def _torch() -> Line:
    parts = torch.__version__.partition("+")[0].split(".")
    if (int(parts[0]), int(parts[1])) >= (2, 10):
        return Line("torch", "ok", torch.__version__)
    remedy = "pip install 'torch>=2.10': older ones load files with known security holes"
    return Line("torch", "failed", f"{torch.__version__}, must be 2.10 or newer", remedy)


def _device(settings: Settings) -> Line:
    if not settings.on_gpu:
        seen = f"; torch sees {torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else ""
        return Line("device", "ok", f"CPU, {_processor()}{seen}")
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda or 'nothing: a CPU build'}"
        remedy = "install a CUDA build of torch and a driver for it (pytorch.org), or use device=cpu"
        return Line("device", "failed", f"torch sees no GPU; {built}; driver {_driver()}", remedy)
    properties = torch.cuda.get_device_properties(torch.device(settings.device))
    values = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver(),
        "gpus": torch.cuda.device_count(),
    }
    text = f"{properties.name}, {size_text(properties.total_memory)}, capability {values['capability']}, "
    text += f"CUDA {torch.version.cuda}, driver {values['driver']}; GPUs: {values['gpus']}"
    return Line("device", "ok", text, values=values)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"
    return one_line(answer.stdout.partition("\n")[0], 40)


def _precision(settings: Settings) -> Line:
    if settings.on_gpu and not torch.cuda.is_available():
        return Line("precision", "skipped", "no GPU")
    precision, why = precision_for(torch.device(settings.device))
    return Line(
        "precision", "ok", f"train.precision=auto is {precision}: {why}", values={"precision": precision}
    )


def _capacity(settings: Settings) -> Line:
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count() if settings.on_gpu else 0
    slots, threads = share_out(None, None, 1, gpus, cores)
    text = f"{cores} cores: a study has {slots} run{'s' * (slots > 1)} at a time, {threads} threads each"
    more = "; hydra.launcher.runs_per_gpu=N puts more small runs on a GPU" if gpus else ""
    return Line("slots", "ok", text + more, values={"cores": cores, "slots": slots, "threads": threads})


def _memory() -> Line:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        known = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free, total = known["MemAvailable"], known["MemTotal"]
    except (OSError, KeyError, ValueError):
        return Line("memory", "info", "unknown: no /proc/meminfo")
    values, text = {"free_bytes": free, "total_bytes": total}, f"{size_text(free)} of {size_text(total)} free"
    if free < 2 * GIB:
        return Line(
            "memory", "warn", text, "a run needs 1 to 5 GB: end other work, or hydra.launcher.slots=1", values
        )
    return Line("memory", "ok", text, values=values)


def _places(settings: Settings) -> Iterator[Line]:
    config = composed(list(settings.overrides))
    out, uri = Path(str(config.out)).absolute(), config.tracking.uri
    place = _existing(out)
    free = shutil.disk_usage(place).free
    full = (
        "each checkpoint of full YOLOv4 takes 1 GB and a run keeps two; free some, or out=DIR on another disk"
    )
    status = "ok" if free > 5 * GIB else "warn" if free > GIB else "failed"
    yield Line(
        "disk",
        status,
        f"{size_text(free)} free at {place}",
        full if status != "ok" else "",
        {"free_bytes": free},
    )
    yield _writable(place)
    yield _mlflow(bool(config.tracking.enabled), None if uri is None else str(uri))


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _writable(place: Path) -> Line:
    """Whether files can be written, renamed and locked there, as runs and the store need it."""
    try:
        with tempfile.TemporaryDirectory(prefix=".ablation-doctor-", dir=place) as folder:
            first, second = Path(folder) / "a", Path(folder) / "b"
            first.write_bytes(b"x")
            first.replace(second)
            with exclusive_lock(Path(folder) / "lock") as locked:
                if not locked:
                    raise OSError("a new file cannot be locked")
    except OSError as error:
        remedy = (
            "work in a folder on a local disk, or give out=DIR and tracking.uri=sqlite:////PATH/mlflow.db"
        )
        return Line("store", "failed", f"{place}: {one_line(error, 150)}", remedy)
    return Line("store", "ok", f"{place} is writable, with renaming and locks")


def _mlflow(enabled: bool, uri: str | None) -> Line:
    """Optional: runs are whole without it, and `ablation sync` enters them later."""
    if not enabled:
        return Line("MLflow", "info", "off (tracking=none)")
    if not packages.is_installed("mlflow"):
        text = "not installed; runs are written to their folders"
        return Line(
            "MLflow", "info", text, "pip install mlflow, or tracking=none; `ablation sync` enters them later"
        )
    if uri is None or not uri.startswith(("http://", "https://")):
        return Line("MLflow", "ok", "installed; the store is a file")
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5) as answer:
            status = answer.status
    except (OSError, ValueError) as error:
        remedy = (
            "start the server or correct tracking.uri; runs go on without it and `ablation sync` enters them"
        )
        return Line("MLflow", "warn", f"the server does not answer: {one_line(error, 120)}", remedy)
    return Line("MLflow", "ok", f"the server answers ({status})")
