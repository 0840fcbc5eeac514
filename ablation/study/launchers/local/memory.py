"""Did a run end because memory ran out?"""

from __future__ import annotations

import re
from pathlib import Path

import torch

_MESSAGES = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.I)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this exception says that memory, a GPU's or the machine's, was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator and some CUDA libraries say so in words only.
    return isinstance(error, RuntimeError | OSError) and bool(_MESSAGES.search(str(error)))


def kernel_kills(
    process: Path = Path("/proc/self/cgroup"),
    groups: Path = Path("/sys/fs/cgroup"),
    machine: Path = Path("/proc/vmstat"),
) -> int | None:
    """How many processes the kernel has killed for want of memory, so far.

    Counted in this process's control group, which its children share; where that cannot be read,
    on the whole machine. None: it cannot be told. Only a rise between two calls means anything.
    """
    counts = [_counter(file, "oom_kill") for file in [*_group_files(process, groups), machine]]
    return next((count for count in counts if count is not None), None)


def _group_files(process: Path, groups: Path) -> list[Path]:
    try:
        lines = process.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            files.append(groups / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(groups / "memory" / path.lstrip("/") / "memory.oom_control")
    return files


def _counter(file: Path, name: str) -> int | None:
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
