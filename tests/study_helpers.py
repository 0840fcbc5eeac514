"""Running the real command line in a folder of its own, on a network and images that take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

TINY = [
    "model=yolov4_small",
    "model.width=0.0625",
    "model.depth=0.1",
    "data.train_images=24",
    "data.val_images=8",
    "data.size_px=64",
    "train.size_px=64",
    "train.batch_size=8",
    "train.epochs=2",
    "train.eval_every=1",
    "train.precision=fp32",
    "train.threads=1",
]
"""Overrides for a run of about a second."""


def ablation(folder: Path, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`; `check` is the exit code it must have (None: any)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", "ablation.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if check is not None:
        assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that the command ended with; there must be no traceback before it."""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("ablation: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def run_folders(folder: Path) -> list[Path]:
    """The runs below `folder`."""
    return sorted(path.parent for path in (folder / "runs").glob("*/*/*/run.json"))


def metrics(run: Path) -> list[dict[str, Any]]:
    """The run's lines, without what is a time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {"epoch": line["epoch"]} | {k: v for k, v in line["metrics"].items() if not k.startswith("time/")}
        for line in lines
    ]


def notes(run: Path) -> dict[str, Any]:
    """Facts found while training."""
    return dict(json.loads((run / "notes.json").read_text()))
