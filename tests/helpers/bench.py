"""Where benchmarks put their numbers: printed, and in the JSON file that BENCH_JSON names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from ablation.machine import describe


def keep(part: str, name: str, numbers: dict[str, Any]) -> None:
    """Add numbers under a name to a part of the file of results, with the machine's description."""
    if not os.environ.get("BENCH_JSON"):
        return
    file = Path(os.environ["BENCH_JSON"])
    content = json.loads(file.read_text()) if file.exists() else {}
    content["machine"] = describe(torch.device("cpu"))
    content.setdefault(part, {})[name] = numbers
    file.write_text(json.dumps(content, indent=1) + "\n")
