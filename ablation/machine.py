"""What this machine can do, and what of it a run used."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path

import torch

from ablation import __version__
from ablation.errors import UsageError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Options of mallopt, as numbered in malloc.h."""


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
    """auto: see precision_for; anything else is what it is."""
    return precision_for(device)[0] if name == "auto" else name


def precision_for(device: torch.device) -> tuple[str, str]:
    """The fastest precision that the device has in hardware, and why that one.

    A GPU: bf16 from compute capability 8.0 (A100, RTX 30) on, fp16 from 7.0 (V100, T4, RTX 20) on, whose
    tensor cores know no bf16, else fp32. A CPU: bf16 with AVX512-BF16 or AMX, else fp32; fp16 is slow there.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        precision = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
        return precision, f"compute capability {capability[0]}.{capability[1]}"
    if _cpu_has_bf16():
        return "bf16", "the CPU multiplies bf16 in hardware"
    return "fp32", "the CPU has neither AVX512-BF16 nor AMX"


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
    """What the network computes in: bfloat16, float16, or None for the full precision of its weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def set_up_torch(threads: int | None, deterministic: bool, fixed_size: bool = True) -> None:
    """CPU threads (null: torch's choice) and the choice of kernels, for this process.

    fp32 is float32 on a GPU too: convolutions do not fall back on TF32, as torch would let them.

    Args:
        deterministic: kernels that repeat; else cuDNN times its kernels once for each size of input and
            takes the fastest.
        fixed_size: whether inputs have one size; with many sizes that timing does not pay.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # As use_deterministic_algorithms(..., warn_only=True), which imports torch's compiler: a second.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    # In deterministic mode torch fills every new tensor, a sixth of YOLOv4's step on a CPU. Nothing here
    # reads a tensor before it is written, so numbers are the same without.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    torch.backends.cudnn.benchmark = fixed_size and not deterministic
    torch.backends.cudnn.allow_tf32 = False


def _keep_freed_memory() -> None:
    """Have glibc's allocator keep what is freed for the next tensor of this process.

    By default a tensor of more than 32 MB, and often a smaller one, is mapped anew and unmapped when it is
    freed, and every step pays for the same pages again. Elsewhere than on glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    allocator = ctypes.CDLL(None)
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)):
        allocator.mallopt(option, value)


def share_out(
    slots: int | None, threads: int | None, runs_per_gpu: int, gpus: int, cores: int
) -> tuple[int, int]:
    """(runs at a time, CPU threads of each), from what was asked for and what the machine has."""
    at_once = slots if slots is not None else (gpus * runs_per_gpu or cores)
    return at_once, threads if threads is not None else max(1, cores // at_once)


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
