"""Damaged tables of runs that were made elsewhere."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.fuzz import Reader, Result
from helpers.mutations import Damage

from ablation.commands.imports.table import read_table

Fuzz = Callable[[Reader, int], Result]

COLUMNS = ["arm", "seed", "AP", "loss.name", "loss.gamma", "state", "reason", "epoch", "time/train_s"]
ROWS = [
    ["bce", "0", "0.41", "bce", "", "", "", "", "12.5"],
    ["bce", "1", "0.43", "bce", "", "", "", "3", "13"],
    ["focal", "0", "0.44", "focal", "2", "FINISHED", "", "", "12"],
    ["focal", "1", "", "focal", "2.0", "DIVERGED", "the loss was infinite", "2", ""],
]
NOT_METRICS = {"arm", "seed", "state", "reason", "epoch", "detections"}


# CSV


def write_csv(folder: Path) -> None:
    write_rows(folder / "runs.csv", [COLUMNS, *ROWS])


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows(rows)


def damage_csv(folder: Path, damage: Damage) -> None:
    path = folder / "runs.csv"
    if damage.random.random() < 0.6:
        write_rows(path, damage.table([COLUMNS, *ROWS]))
    else:
        damage.text_file(path)


def read_csv(folder: Path) -> Any:
    return read_table(folder / "runs.csv")


def wrong_csv(folder: Path, value: Any, undamaged: Any) -> str | None:
    text = (folder / "runs.csv").read_text(encoding="utf-8-sig")
    lines = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    lines = [row for row in lines if not row[0].lstrip().startswith("#")]
    head = [cell.strip() for cell in lines[0]]
    return wrong_rows(value, [dict(zip(head, row, strict=True)) for row in lines[1:]])


def wrong_rows(value: Any, lines: list[dict[str, Any]]) -> str | None:
    """Compares the rows with the cells, read plainly."""
    if len(value) != len(lines):
        return f"{len(value)} rows of {len(lines)} lines"
    for row, cells in zip(value, lines, strict=True):
        texts = {name: "" if cell is None else str(cell).strip() for name, cell in cells.items()}
        metrics = {
            name if "/" in name else f"val/{name}": float(text)
            for name, text in texts.items()
            if text and name not in NOT_METRICS and not name.startswith("loss.")
        }
        if (row.arm, row.seed, row.metrics) != (texts["arm"], int(texts["seed"]), metrics):
            return f"{row} is not {texts}"
        if row.epoch != int(texts.get("epoch") or 1) or row.state != (texts.get("state") or "FINISHED"):
            return f"{row} is not {texts}"
        if not all(map(math.isfinite, row.metrics.values())):
            return f"{row} has metrics that are not finite"
        if any(not name.isprintable() or not name.strip() for name in texts):
            return f"a column of the name {[*texts]} was taken"
        for name in texts:
            metric = name if "/" in name else f"val/{name}"
            if metric.split("/", 1)[1].startswith(("AP", "AR")) and not 0 <= row.metrics.get(metric, 0) <= 1:
                return f"{metric} of {row.metrics[metric]}"
    return None


SPECIAL_CSV: dict[str, Callable[[Path], None]] = {
    "empty": lambda folder: (folder / "runs.csv").write_bytes(b"") and None,
    "folder": lambda folder: (folder / "runs.csv").unlink() or (folder / "runs.csv").mkdir(),
    "NUL": lambda folder: (folder / "runs.csv").write_bytes(b"arm,seed,AP\nbce,0,0.\x004\n") and None,
    "long cell": lambda folder: write_rows(folder / "runs.csv", [COLUMNS[:3], ["x" * 200_000, "0", "0.4"]]),
    "many digits": lambda folder: write_rows(folder / "runs.csv", [COLUMNS[:3], ["a", "9" * 5000, "0.4"]]),
    "metric of MLflow's own": lambda folder: write_rows(
        folder / "runs.csv", [["arm", "seed", "AP", "loss.a+b"], ["a", "0", "0.4", "1"]]
    ),
}
CSV = Reader(
    "import table, CSV", write_csv, damage_csv, read_csv, wrong_csv, SPECIAL_CSV, names=("runs.csv",)
)


def test_csv_tables(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(CSV, mutations).failures == []


# JSON lines


def json_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    for row in rows:
        row["seed"] = int(row["seed"])
        row["AP"] = float(row["AP"]) if row["AP"] else None
    return rows


def write_jsonl(folder: Path) -> None:
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in json_rows()))


def damage_jsonl(folder: Path, damage: Damage) -> None:
    path = folder / "runs.jsonl"
    if damage.random.random() < 0.6:
        rows = damage.tree(json_rows())
        lines = rows if isinstance(rows, list) else [rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    else:
        damage.text_file(path)


def read_jsonl(folder: Path) -> Any:
    return read_table(folder / "runs.jsonl")


def wrong_jsonl(folder: Path, value: Any, undamaged: Any) -> str | None:
    text = (folder / "runs.jsonl").read_text(encoding="utf-8-sig")
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    pairs = [json.loads(line, object_pairs_hook=lambda pairs: pairs) for line in lines]
    if any(len(dict(row)) != len(row) for row in pairs):
        return "a key that stands twice was taken"
    if any(isinstance(cell, bool) for row in pairs for _, cell in row):
        return "true or false was taken for a text or a number"
    return wrong_rows(value, [dict(row) for row in pairs])


JSONL = Reader(
    "import table, JSON lines", write_jsonl, damage_jsonl, read_jsonl, wrong_jsonl, names=("runs.jsonl",)
)


def test_json_tables(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(JSONL, mutations).failures == []
