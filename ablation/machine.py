"""What this machine can do, and what of it a run used."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from ablation import __version__
from ablation.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """auto: the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"train.device: found {name!r}, must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f"train.device: {name} asked for, but torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """auto: bf16 where the device multiplies it in hardware, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in text or "amx_bf16" in text


def code_version() -> dict[str, str]:
    """Version of the package, and the git commit it runs from where there is one."""
    versions = {"version": __version__}
    folder = Path(__file__).resolve().parent.parent
    if (folder / ".git").exists():
        git = ["git", "-C", str(folder)]
        try:
            commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
            changes = subprocess.run(
                [*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return versions
        if commit.returncode == 0:
            versions["git_commit"] = commit.stdout.strip()
            versions["git_dirty"] = str(bool(changes.stdout.strip())).lower()
    return versions


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What the network computes in: bfloat16 for bf16, None for the full precision of its weights."""
    return torch.bfloat16 if precision == "bf16" else None


def set_up_torch(threads: int | None, deterministic: bool) -> None:
    """CPU threads (null: torch's choice) and deterministic kernels, for this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def describe(device: torch.device) -> dict[str, str]:
    """The machine as a person would name it, for the run's record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "host": platform.node(),
        "device": f"{device.type} ({name})",
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }
