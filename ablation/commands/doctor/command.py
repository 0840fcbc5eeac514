"""`ablation doctor`: its arguments, what it prints, its exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from ablation import __version__
from ablation.commands.arguments import Arguments
from ablation.commands.doctor import packages
from ablation.commands.doctor.lines import Line, as_dict


def run(arguments: list[str]) -> int:
    """Look at the machine; 0: ready, 1: something failed."""
    defaults = {"device": "auto", "json": "false", "sweeps": "", "quick": "false"}
    args = Arguments.parse("doctor", arguments, defaults, overrides=True)
    as_json = args.flag("json")
    began, shown = time.monotonic(), ""
    lines: list[dict[str, Any]] = []
    for section, line in _lines(args, began):
        if not as_json:
            print(line.as_text() if section == shown else f"{section}\n{line.as_text()}", flush=True)
        shown = section
        lines.append(as_dict(section, line))
    failed = [line["name"].strip() for line in lines if line["status"] == "failed"]
    seconds = time.monotonic() - began
    if as_json:
        answer = {"version": __version__, "ready": not failed, "seconds": seconds, "lines": lines}
        print(json.dumps(answer, indent=1))
    elif failed:
        print(f"NOT READY: {len(failed)} failed ({', '.join(failed)}); looked at in {seconds:.0f} s")
    else:
        print(f"READY; looked at in {seconds:.0f} s")
    return 1 if failed else 0


def _lines(args: Arguments, began: float) -> Iterator[tuple[str, Line]]:
    missing = packages.look()
    yield "packages", missing
    if missing.status == "failed":
        return
    from ablation.commands.doctor.examination import examine, settings_of  # needs those packages

    settings = settings_of(args.text("device"), args.text("sweeps"), args.overrides, args.flag("quick"))
    yield from examine(settings, began)
