"""`ablation doctor`: the sections, their limits, and what is printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import torch

from ablation import __version__
from ablation.commands.arguments import Arguments
from ablation.commands.doctor import facts, gpu, self_test, speed, sweep
from ablation.commands.doctor.lines import Line, Section, Settings, as_dict
from ablation.commands.doctor.process import run_section
from ablation.machine import resolve_device

LIMIT_S = 470.0
"""Of the whole command: within 8 minutes."""


def run(arguments: list[str]) -> int:
    """Look at the machine; 0: ready, 1: something failed."""
    defaults = {"device": "auto", "json": "false", "sweeps": "", "quick": "false"}
    args = Arguments.parse("doctor", arguments, defaults, overrides=True)
    as_json = args.flag("json")
    settings = Settings(
        _device(args.text("device")), args.text("sweeps"), tuple(args.overrides), args.flag("quick")
    )
    began = time.monotonic()
    lines: list[dict[str, Any]] = []
    for section, line in _lines(settings, began):
        if not as_json:
            if not lines or lines[-1]["section"] != section:
                print(section)
            print(line.as_text(), flush=True)
        lines.append(as_dict(section, line))
    failed = [line for line in lines if line["status"] == "failed"]
    seconds = time.monotonic() - began
    if as_json:
        answer = {"version": __version__, "device": settings.device, "ready": not failed, "seconds": seconds}
        print(json.dumps(answer | {"lines": lines}, indent=1))
    elif failed:
        names = ", ".join(line["name"].strip() for line in failed)
        print(f"NOT READY: {len(failed)} failed ({names}); looked at in {seconds:.0f} s")
    else:
        print(f"READY on {settings.device}; looked at in {seconds:.0f} s")
    return 1 if failed else 0


def _device(name: str) -> str:
    """auto becomes what a run would take; an absent GPU is a failed line, no error."""
    absent = name.startswith("cuda") and not torch.cuda.is_available()
    return name if absent else str(resolve_device(name))


def sections(settings: Settings) -> list[Section]:
    """What is looked at, in this order, with the seconds that each may take."""
    chosen = [Section("machine", facts.look, 40), Section("self-test", self_test.look, 100)]
    if settings.on_gpu and not settings.quick:
        chosen += [Section("GPU against CPU", gpu.agreement, 45), Section("host and GPU", gpu.no_waiting, 45)]
    chosen.append(Section("speed", speed.look, 100))
    if settings.sweep:
        chosen.append(Section("study", sweep.look, 120))
    if settings.on_gpu and not settings.quick:
        chosen += [
            Section("full YOLOv4", gpu.full_network, 110),
            Section("side by side", gpu.side_by_side, 90),
        ]
    return chosen


def _lines(settings: Settings, began: float) -> Iterator[tuple[str, Line]]:
    usable = True
    for section in sections(settings):
        left_s = LIMIT_S - (time.monotonic() - began)
        if not usable or left_s < 5:
            why = "there is no such device" if not usable else "the 8 minutes are over"
            yield section.name, Line(section.name, "skipped", why)
            continue
        for line in run_section(section, settings, min(section.limit_s, left_s)):
            usable = usable and not (line.status == "failed" and line.name in ("device", "packages"))
            yield section.name, line
