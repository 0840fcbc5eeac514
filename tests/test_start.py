"""What a command imports before it answers, since that is most of the time it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.command import TINY, ablation
from helpers.process_server import ENVIRONMENT

LARGE = {
    *("mlflow", "pandas", "matplotlib", "sklearn", "statsmodels"),
    *("scipy.stats", "scipy.optimize", "torch._dynamo", "sympy"),
}
PROGRAM = """
import sys
from ablation.cli import run
assert run(sys.argv[1:]) == 0
print("imported:", *sys.modules)
"""


def imported(folder: Path, *arguments: str) -> set[str]:
    """The large modules that a command has imported by its end, in an interpreter of its own."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rsplit("imported:", 1)[1].split()) & (LARGE | {"torch", "numpy", "hydra"})


def test_the_help_imports_nothing_large(tmp_path: Path) -> None:
    assert imported(tmp_path, "--help") == set()


def test_a_plan_imports_neither_mlflow_nor_what_only_a_report_needs(tmp_path: Path) -> None:
    assert not imported(tmp_path, "plan", "loss=bce,focal", *TINY) & LARGE


def test_a_status_reads_folders_alone(tmp_path: Path) -> None:
    ablation(tmp_path, "train", "study=s", "train.epochs=1", "tracking.enabled=false", *TINY)
    assert imported(tmp_path, "status", "study=s") == set()
