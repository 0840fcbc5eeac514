"""The sections of an examination, in order, and the time that they have."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from ablation.commands.doctor import facts, gpu, self_test, speed, sweep
from ablation.commands.doctor.lines import Line, Section, Settings
from ablation.commands.doctor.process import run_section
from ablation.commands.doctor.training import composed
from ablation.machine import resolve_device

LIMIT_S = 470.0
"""Of the whole command: within 8 minutes."""


def settings_of(device: str, sweep_name: str, overrides: list[str], quick: bool) -> Settings:
    """What was asked for, checked.

    Args:
        device: auto becomes what a run would take; a GPU where there is none is a failed line, no error.

    Raises:
        UsageError: one line, for a device, a study or an override that is not understood.
    """
    composed([*([f"sweeps={sweep_name}"] if sweep_name else []), *overrides])
    absent = device.startswith("cuda") and not torch.cuda.is_available()
    return Settings(device if absent else str(resolve_device(device)), sweep_name, tuple(overrides), quick)


def sections(settings: Settings) -> list[Section]:
    """What is looked at, in this order, with the seconds that each may take."""
    whole_gpu = settings.on_gpu and not settings.quick
    chosen = [Section("machine", facts.look, 40), Section("self-test", self_test.look, 100)]
    if whole_gpu:
        chosen += [Section("GPU against CPU", gpu.agreement, 45), Section("host and GPU", gpu.no_waiting, 45)]
    chosen.append(Section("speed", speed.look, 100))
    if settings.sweep:
        chosen.append(Section("study", sweep.look, 120))
    if whole_gpu:
        chosen.append(Section("full YOLOv4", gpu.full_network, 110))
        chosen.append(Section("side by side", gpu.side_by_side, 90))
    return chosen


def examine(settings: Settings, began: float) -> Iterator[tuple[str, Line]]:
    """Each line with its section. Without the device that was asked for, nothing is computed.

    Args:
        began: time.monotonic() at the start of the command.
    """
    usable = True
    for section in sections(settings):
        left_s = LIMIT_S - (time.monotonic() - began)
        if not usable or left_s < 5:
            why = "there is no such device" if not usable else "the 8 minutes are over"
            yield section.name, Line(section.name, "skipped", why)
            continue
        for line in run_section(section, settings, min(section.limit_s, left_s)):
            usable = usable and not (line.status == "failed" and line.name == "device")
            yield section.name, line
