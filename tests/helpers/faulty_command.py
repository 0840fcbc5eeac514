"""A command line whose runs misbehave on purpose, and what is left of their processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.command import ROOT

FAULTY = '''\
"""The product's command, with a training loop that does to run N what FAULTS says."""
import ctypes, os, signal, sys, time
import torch
from ablation.training.run import Run

FAULTS = {faults!r}
original = Run.epoch

def first_time(run, name):
    marker = run.folder.file(name)
    first = not marker.exists()
    marker.touch()
    return first

def epoch(self, loader, number):
    metrics = original(self, loader, number)
    fault = FAULTS.get(self.config.seed)
    if number == 1 and fault is not None:
        exec(fault)
    return metrics

Run.epoch = epoch

if __name__ == "__main__":
    from ablation.cli import main
    main()
'''


def faulty_command(folder: Path, faults: dict[int, str]) -> list[str]:
    """A program in `folder` that is `ablation`, except that seed N meets faults[N] in its second epoch.

    The processes of a pool import their parent's program, so they get the fault with it.
    """
    program = folder / "faulty.py"
    program.write_text(FAULTY.format(faults=faults))
    return [sys.executable, str(program)]


def start(command: list[str], folder: Path, log: Path) -> subprocess.Popen[str]:
    """Start a command in `folder`; what it writes goes to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=file, stdout=file, text=True)


def processes_in(folder: Path) -> dict[int, str]:
    """The living processes whose working folder is `folder`: launcher, fork server, runs, helpers."""
    processes = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rsplit(")")[-1].split()[0]
            if (entry / "cwd").readlink() == folder and state != "Z":
                processes[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")[:100]
        except OSError:
            continue
    return processes
