"""Running the real command line in a folder of its own, on a network and images that take seconds."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.process_server import ENVIRONMENT, LIMIT_S, start
from helpers.process_server import ROOT as ROOT
from helpers.shared import put_store

SETTINGS = [
    "data.train_images=24",
    "data.val_images=8",
    "data.size_px=64",
    "train.size_px=64",
    "train.batch_size=8",
    "train.epochs=2",
    "train.eval_every=1",
    "train.precision=fp32",
    "train.threads=1",
    "train.checkpoint_share=1",  # at the end of every epoch, however short it is
]
TINY = ["model=yolov4_tiny_small", "model.width=0.0625", *SETTINGS]
"""Overrides for a run of less than a second."""
SMALL = ["model=yolov4_small", "model.width=0.0625", "model.depth=0.1", *SETTINGS]
"""The same with YOLOv4 itself, 110 convolutions of which take twice as long."""


def ablation(
    folder: Path, *arguments: str, check: int | None = 0, figures: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`; `check` is the exit code it must have (None: any).

    A command that trains into a new folder gets an empty store; see put_store. Without `figures`, a report
    has one small picture for each of them; see helpers.one_picture.
    """
    tracks = arguments[0] in ("train", "import", "settle") and not any(
        argument.startswith(("tracking", "uri=")) for argument in arguments
    )
    if check == 0 and tracks and not (folder / "mlflow.db").exists():
        put_store(folder)
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        process = start(
            "helpers.process_server:command", arguments, figures, folder=folder, out=out.name, err=err.name
        )
        process.join()
        assert process.exitcode is not None
        result = subprocess.CompletedProcess(
            ["ablation", *arguments], process.exitcode, out.read(), err.read()
        )
    return _checked(result, check)


def in_this_process(folder: Path, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """As `ablation`, by calling its main function: for errors that come before anything is started."""
    from ablation import cli

    out, err, code = io.StringIO(), io.StringIO(), 0
    handlers = list(logging.getLogger().handlers)
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["ablation", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            logging.getLogger().handlers[:] = handlers
    result = subprocess.CompletedProcess(["ablation", *arguments], code, out.getvalue(), err.getvalue())
    return _checked(result, check)


def started_from_nothing(
    folder: Path, *arguments: str, check: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """As `ablation`, in an interpreter that starts for it alone."""
    result = subprocess.run(
        [sys.executable, "-m", "ablation.cli", *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    return _checked(result, check)


def _checked(result: subprocess.CompletedProcess[str], check: int | None) -> subprocess.CompletedProcess[str]:
    if check is not None:
        assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that the command ended with; there must be no traceback before it."""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("ablation: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def launch_counts(text: str) -> dict[str, int]:
    """How many runs a launch found in which state, such as {"done": 6, "to do": 3}."""
    (line,) = [line for line in text.splitlines() if re.search(r"\d+ arms?, \d+ runs?, ", line)]
    return {state: int(number) for number, state in re.findall(r"(\d+) (done|to do|pruned|failed)", line)}


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
