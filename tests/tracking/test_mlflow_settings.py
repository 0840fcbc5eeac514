"""What MLflow must be told before it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from helpers.command import ROOT


def test_mlflow_may_not_unpickle_and_is_told_before_it_is_imported() -> None:
    program = (
        "import ablation.tracking.store, mlflow.environment_variables as e; "
        "print(e.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get(), e.MLFLOW_DISABLE_TELEMETRY.get())"
    )
    bare = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]
    lines = (ROOT / "ablation" / "tracking" / "store.py").read_text().splitlines()
    told = next(n for n, line in enumerate(lines) if "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in line)
    assert told < next(n for n, line in enumerate(lines) if re.match(r"\s*(from|import) mlflow", line))
