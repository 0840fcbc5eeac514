"""Runs of ultralytics: results.csv, one line an epoch, and the args.yaml beside it.

    DIR/RUN/results.csv         the arm is RUN without a seed at its end: bce-seed0, focal_s1
    DIR/ARM/RUN/results.csv     the arm is ARM
    results.csv                 one run, named by its folder

The seed is `seed` in args.yaml, else the number at the end of the folder's name. The runs of an arm must
have equal args. Args that name a loss (loss, focal, fl_) become settings of the loss, the others
are settings that all arms should share. Column names may be padded with spaces, as versions before 8.3
write them.
The last epoch counts, as in every study; never the best one. Their AP is their own (not pycocotools').
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablation.commands.imports.table import Epoch, Row, check_runs
from ablation.errors import DataError, UsageError, one_line
from ablation.yaml_files import load_yaml

RESULTS, ARGS = "results.csv", "args.yaml"
NAMES = {
    "metrics/mAP50-95(B)": "val/AP",
    "metrics/mAP50(B)": "val/AP50",
    "metrics/mAP_0.5:0.95": "val/AP",
    "metrics/mAP_0.5": "val/AP50",
    "metrics/precision(B)": "val/precision",
    "metrics/recall(B)": "val/recall",
    "metrics/precision": "val/precision",
    "metrics/recall": "val/recall",
    "time": "time/total_s",
}
"""Their columns -> our metrics; lr/X becomes train/lr_X, others keep their name."""
_OF_THE_LAUNCH = {
    *("name", "project", "save_dir", "device", "workers", "seed", "exist_ok", "verbose", "plots"),
    *("save", "save_period", "resume", "cache", "show", "mode", "val"),
}
_LOSS = re.compile(r"loss|focal|^fl_", re.IGNORECASE)
_SEED = re.compile(r"[-_ ](?:seed|s)[-_ ]?(\d{1,9})$")


def is_ultralytics(path: Path) -> bool:
    """Whether it is a folder, or a CSV file with ultralytics' column of AP."""
    if path.is_dir():
        return True
    if path.suffix != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        head = {name.strip() for name in file.readline(10_000).split(",")}
    return "epoch" in head and "arm" not in head and any(NAMES.get(name) == "val/AP" for name in head)


def read_runs(path: Path) -> list[Row]:
    """The runs of a folder of results.csv files, or of one such file.

    Raises:
        DataError: naming file, line and column.
        UsageError: there is no results.csv.
    """
    if path.is_file():
        rows = [_run(path, path.resolve().parent.name)]
    else:
        files = sorted([*path.glob(f"*/{RESULTS}"), *path.glob(f"*/*/{RESULTS}")])
        if not files and (path / RESULTS).is_file():
            return read_runs(path / RESULTS)
        if not files:
            raise UsageError(f"table={path}: no {RESULTS} in it; it must be DIR/RUN/{RESULTS}")
        rows = [_run(file, file.relative_to(path).parts[0]) for file in files]
    check_runs(rows)
    return rows


def _run(file: Path, name: str) -> Row:
    args = _args(file.with_name(ARGS))
    ending = _SEED.search(name)
    arm = name[: ending.start()] if ending else name
    seed = args.get("seed", int(ending[1]) if ending else _seed_of(file))
    if type(seed) is not int or seed < 0:
        raise DataError(
            f"{file}: its seed is {seed!r}; give `seed: N` in {ARGS} beside it, or name the folder ARM-seedN"
        )
    if not arm.isprintable() or not 0 < len(arm) <= 200:
        raise DataError(f"{file}: arm {one_line(repr(arm), 80)}: must be printable text; rename the folder")
    epochs = list(_epochs(file))
    if not epochs:
        raise DataError(f"{file}: no epochs in it; a line is one epoch")
    last, metrics = epochs[-1]
    if "val/AP" not in metrics:
        raise DataError(f"{file}: the last epoch has no finite metrics/mAP50-95(B); leave this run out")
    state, reason = _state(last, args)
    params = {"loss.name": arm} | {
        ("loss." if _LOSS.search(key) else "args.") + key: _setting(value) for key, value in args.items()
        if key not in _OF_THE_LAUNCH and value is not None
    }  # fmt: skip
    return Row(
        str(file),
        arm,
        seed,
        state,
        reason,
        last,
        params,
        metrics,
        None,
        epochs=tuple(entry for entry in epochs if entry[1]),
    )


def _seed_of(file: Path) -> int | None:
    """The number at the end of the run's own folder, where that is DIR/ARM/RUN."""
    match = re.search(r"(\d{1,9})$", file.parent.name)
    return int(match[1]) if match else None


def _args(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path)
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and re.fullmatch(r"[\w .:-]+", key) for key in content
    ):
        raise DataError(f"{path}: must be settings, NAME: VALUE a line")
    return content


def _setting(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(float(value))
    return Path(value).name if isinstance(value, str) and "/" in value else one_line(str(value), 200)


def _state(last: int, args: dict[str, Any]) -> tuple[str, str]:
    """FINISHED where all epochs are there, or so many that early stopping can have ended it."""
    asked, patience = args.get("epochs"), args.get("patience")
    if type(asked) is not int or last >= asked or (type(patience) is int and 0 < patience < last):
        return "FINISHED", ""
    return "KILLED", f"{last} of {asked} epochs"


def _epochs(file: Path) -> Iterator[Epoch]:
    """(epoch from 1, metrics) in order; of an epoch that stands twice, as after a resume, the last."""
    lines: dict[int, dict[str, float]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            head = [cell.strip() for cell in next(reader, [])]
            if "epoch" not in head:
                raise DataError(f"{file}:1: no column epoch; it must be ultralytics' {RESULTS}")
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                where = f"{file}:{reader.line_num}"
                if len(cells) != len(head):
                    raise DataError(f"{where}: {len(cells)} cells under {len(head)} columns; mend the line")
                row = dict(zip(head, cells, strict=True))
                epoch = _number(where, "epoch", row.pop("epoch"))
                if not epoch.is_integer() or not 0 <= epoch < 1e9:
                    raise DataError(f"{where}: epoch: found {epoch:g}, must be a whole number, at least 0")
                lines[int(epoch)] = _metrics(where, row)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not readable as UTF-8 text: {one_line(error, 100)}") from None
    except (csv.Error, OSError) as error:
        raise DataError(f"{file}: not readable as a table: {one_line(error, 100)}") from None
    shift = 1 if 0 in lines else 0  # versions before 8.2 count from 0
    for epoch in sorted(lines):
        yield epoch + shift, lines[epoch]


def _metrics(where: str, row: dict[str, str]) -> dict[str, float]:
    """What is finite; a loss that is nan says nothing that could be drawn."""
    metrics: dict[str, float] = {}
    for name, text in row.items():
        if not name or not text.strip():
            continue
        ours = NAMES.get(name, name.replace("lr/", "train/lr_", 1) if name.startswith("lr/") else name)
        value = _number(where, name, text)
        if ours.startswith("val/AP") and math.isfinite(value) and not 0 <= value <= 1:
            raise DataError(f"{where}: {name}: found {text.strip()}, must lie in [0, 1]")
        if math.isfinite(value) and name.isprintable():
            metrics[ours if "/" in ours else f"train/{ours}"] = value
    return metrics


def _number(where: str, name: str, text: str) -> float:
    try:
        return float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        raise DataError(f"{where}: {name}: found {text.strip()!r}, must be a number; mend the cell") from None
