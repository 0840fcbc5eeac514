"""A study's status on a terminal: one row a run, counts above, reasons below."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablation.errors import counted
from ablation.study.pace import clock
from ablation.study.run_status import RunStatus, StudyStatus, study_status

WATCH_S = 2.0
WIDE = 160
"""Columns where standard output is a file or a pipe."""

STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "bold red",
    "diverged": "magenta",
    "interrupted": "yellow",
    "pruned": "blue",
    "stopped": "yellow",
    "to do": "dim",
}


def counts_line(counts: Mapping[str, int], total: int, done: int | None = None) -> Text:
    """12 of 40 done: 11 finished, 1 diverged, 2 running, 26 to do.

    Args:
        done: None: those that finished or diverged.
    """
    if done is None:
        done = counts.get("finished", 0) + counts.get("diverged", 0)
    line = Text(f"{done} of {total} done")
    for position, (name, number) in enumerate((n, k) for n, k in counts.items() if k):
        line.append(": " if position == 0 else ", ")
        line.append(f"{number} {name}", STYLES.get(name, ""))
    return line


def table(runs: Sequence[RunStatus], metric: str, left: str = "left") -> Table:
    """One row a run. The arm's column gives way first where the terminal is narrow.

    Args:
        left: heading of the column of times.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("arm", min_width=12)  # the one column that rich may narrow
    grid.add_column("seed", justify="right", no_wrap=True)
    grid.add_column("state", no_wrap=True)
    for name in ("epoch", metric, "images/s", left):
        grid.add_column(name, justify="right", no_wrap=True)
    for seeds, run in _rows(runs):
        grid.add_row(
            Text(run.arm, no_wrap=True, overflow="ellipsis"),
            seeds,
            Text(run.status, STYLES.get(run.status, "")),
            f"{run.epoch}/{run.epochs}",
            "" if run.value is None else f"{run.value:.3f}",
            "" if run.images_per_s is None else f"{run.images_per_s:.0f}",
            "" if run.left_s is None else clock(run.left_s),
        )
    return grid


def _rows(runs: Sequence[RunStatus]) -> list[tuple[str, RunStatus]]:
    """(seeds, run): the runs of an arm that wait alike share a row."""
    rows: dict[tuple[object, ...], tuple[list[int], RunStatus]] = {}
    for run in runs:
        alike = (run.arm, run.left_s) if run.status == "to do" else (run.key,)
        rows.setdefault(alike, ([], run))[0].append(run.seed)
    return [(_spans(seeds), run) for seeds, run in rows.values()]


def _spans(seeds: Sequence[int]) -> str:
    """0-2, 7."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def notes(runs: Sequence[RunStatus], limit: int | None = None) -> list[Text]:
    """Why runs are as they are; runs of an arm that say the same share a line.

    Args:
        limit: most lines; of more, the last one counts the rest.
    """
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for run in runs:
        if run.note:
            seeds.setdefault((run.arm, run.status, run.note), []).append(run.seed)
    lines = []
    for (arm, status, note), numbers in seeds.items():
        line = Text(f"{arm} seed {_spans(numbers)}: ")
        line.append(status, STYLES.get(status, ""))
        lines.append(line.append(f": {note}"))
    if limit is not None and len(lines) > limit:
        rest = len(lines) - limit + 1
        lines = [*lines[: limit - 1], Text(f"and {rest} more", "dim")]
    return lines


def whole(status: StudyStatus) -> RenderableType:
    """Everything, however long: for a terminal that scrolls, or a file."""
    parts: list[RenderableType] = [_head(status), table(status.runs, status.metric), *notes(status.runs)]
    if status.others:
        others = counted(status.others, "more run in the folder is", "more runs in the folder are")
        parts.append(Text(f"{others} not in the plan (any more)", "dim"))
    return Group(*parts)


def page(status: StudyStatus, height: int) -> RenderableType:
    """As much as fits `height` lines: running runs first, then what ended last, then the rest."""
    order = {
        "running": 0,
        "failed": 1,
        "interrupted": 2,
        "diverged": 3,
        "pruned": 4,
        "to do": 5,
        "finished": 6,
    }
    reasons = notes(status.runs, limit=max(1, height // 4))
    room = max(1, height - 7 - len(reasons))
    runs = sorted(status.runs, key=lambda run: order[run.status])
    parts: list[RenderableType] = [_head(status), table(runs[:room], status.metric), *reasons]
    if len(runs) > room:
        parts.append(Text(f"and {len(runs) - room} more runs; without watch=true all are shown", "dim"))
    return Group(*parts)


def _head(status: StudyStatus) -> Text:
    line = Text(f"study {status.study}  ", "bold").append_text(counts_line(status.counts, len(status.runs)))
    if status.left_s is not None:
        line.append(f"; about {clock(status.left_s)} left")
    return line


def show_status(out: Path, study: str, *, watch: bool = False, as_json: bool = False) -> None:
    """Print a study's status once, or keep it on the screen until nothing of it is running.

    Args:
        watch: refresh; where standard output is no terminal, one line whenever something changed.
        as_json: one JSON object (with `watch`: one a line, whenever something changed).
    """
    console = console_on(sys.stdout)
    status = study_status(out, study)
    if not watch:
        if as_json:
            print(json.dumps(status.as_json(), indent=1))
        else:
            console.print(whole(status))
        return
    if as_json or not console.is_terminal:
        _follow(out, study, as_json)
        return
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                status = study_status(out, study)
                live.update(page(status, console.height - 1), refresh=True)
                if not status.counts.get("running"):
                    return
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return


def _follow(out: Path, study: str, as_json: bool) -> None:
    printed = None
    while True:
        status = study_status(out, study)
        progress = [(run.status, run.epoch) for run in status.runs]
        if progress != printed:
            print(json.dumps(status.as_json()) if as_json else _head(status).plain, flush=True)
            printed = progress
        if not status.counts.get("running"):
            return
        time.sleep(WATCH_S)


def console_on(stream: TextIO) -> Console:
    """A console that does not cut lines short where nobody reads them on a screen."""
    console = Console(file=stream, highlight=False)
    return console if console.is_terminal else Console(file=stream, highlight=False, width=WIDE)
