"""The list of studies on a terminal."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from ablation.study.study_list import StudySummary, list_studies
from ablation.study.terminal.status_table import console_on, counts_line


def show_studies(out: Path, *, as_json: bool = False) -> None:
    """Print every study below `out`; as one JSON list where that is asked for."""
    studies = list_studies(out)
    if as_json:
        print(json.dumps([dataclasses.asdict(study) for study in studies], indent=1))
        return
    console = console_on(sys.stdout)
    if not studies:
        console.print(Text(f"no study in {out}/; `ablation train -m sweeps=demo` runs one"))
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("study", "runs", "verdict"):
        grid.add_column(name, overflow="fold")
    for study in studies:
        grid.add_row(Text(study.study), _runs(study), Text(_verdict(study)))
    console.print(grid)
    for study in studies:
        if study.headline:
            console.print(Text(f"{study.study}: {study.headline}"))
    for study in studies:
        if study.next:
            console.print(Text(f"next:  {study.next}"))


def _runs(study: StudySummary) -> Text:
    return Text(study.problem, "bold red") if study.problem else counts_line(study.counts, study.runs)


def _verdict(study: StudySummary) -> str:
    if not study.verdict:
        return "no report yet"
    return f"{study.verdict} (runs have ended since)" if study.outdated else study.verdict
