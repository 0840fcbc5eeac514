"""Damaged files of metrics, as a trainer of a user's own writes them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.fuzz import Reader, Result
from helpers.mutations import Damage

from ablation.errors import DataError
from ablation.training.command.metrics_file import EpochFile, final_metrics

Fuzz = Callable[[Reader, int], Result]
Value = tuple[dict[str, float], list[tuple[int, dict[str, float]]], list[tuple[int, dict[str, float]]]]

ROWS = [{"epoch": number, "train/loss": 1 / number, "AP": number / 8} for number in (1, 2, 3)]


def write(folder: Path) -> None:
    with (folder / "epochs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "end.json").write_text(json.dumps({"AP": 0.5, "AP50": 0.75}))


def damage(folder: Path, mutation: Damage) -> None:
    path = mutation.choose(sorted(folder.iterdir()))
    if path.suffix == ".json":
        mutation.json_file(path)
    else:
        mutation.text_file(path)


def epochs(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Every line that can be used; the others are passed over, as in a run."""
    file, lines = EpochFile(path, {}), []
    while True:
        try:
            for line in file.lines(ended=True):
                lines.append(line)
            return lines
        except DataError:
            continue


def read(folder: Path) -> Value:
    value = (
        final_metrics(folder / "end.json", {}),
        epochs(folder / "epochs.csv"),
        epochs(folder / "epochs.jsonl"),
    )
    for name in [*value[0], *(name for lines in value[1:] for _, metrics in lines for name in metrics)]:
        name.encode()  # as it is stored
    return value


def wrong(folder: Path, value: Value, undamaged: Value) -> str | None:
    """The lines of JSON as they are in the files; of the others that APs are shares and epochs numbers."""
    content = json.loads((folder / "end.json").read_bytes().decode("utf-8-sig"))
    for name, number in value[0].items():
        if not _same(content.get(name.removeprefix("val/"), content.get(name)), number):
            return f"{name} is not {number}"
    rows = [_row(line) for line in (folder / "epochs.jsonl").read_bytes().split(b"\n")]
    for _, metrics in value[2]:
        if not any(_holds(row, metrics) for row in rows):
            return f"no line holds {metrics}"
    for epoch, metrics in value[1]:
        if epoch < 1 or any(
            not 0 <= v <= 1 for n, v in metrics.items() if n == "val/AP" and math.isfinite(v)
        ):
            return f"epoch {epoch}: {metrics}"
    return None


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _holds(row: dict[str, Any], metrics: dict[str, float]) -> bool:
    return all(_same(row.get(n.removeprefix("val/"), row.get(n)), v) for n, v in metrics.items())


def _same(found: Any, number: float) -> bool:
    try:
        return float(found) == number or (math.isnan(float(found)) and math.isnan(number))
    except (TypeError, ValueError, OverflowError):
        return False


def _file(name: str, content: bytes) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return special


METRICS_FILES = Reader(
    "metrics of a trainer",
    write,
    damage,
    read,
    wrong,
    special={
        "NUL": _file("epochs.csv", b"epoch,AP\n1,0\x00.5\n"),
        "mark only": _file("epochs.csv", b"\xef\xbb\xbf"),
        "a quote": _file("epochs.csv", b'epoch,"AP\n1,0.5\n'),
        "a huge cell": _file("epochs.csv", b"epoch,AP\n1," + b"9" * 200_000 + b"\n"),
        "deep": _file("end.json", b"[" * 100_000),
        "digits": _file("end.json", b'{"AP50": ' + b"9" * 6000 + b"}"),
        "surrogate": _file("end.json", b'{"AP": 0.5, "\\ud800": 1}'),
        "line feed": _file("end.json", b'{"AP": 0.5, "a\\nb": 1}'),
        "epoch": _file("epochs.jsonl", b'{"epoch": 1e300, "AP": 0.1}\n{"epoch": true, "AP": 0.1}\n'),
    },
    names=("end.json",),
)


def test_metrics_files(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(METRICS_FILES, mutations).failures == []
