"""Shared by all tests: one thread (bit-identity depends on it), and the real data set where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The BCCD data set, read through ABLATION_BCCD."""
    folder = os.environ.get("ABLATION_BCCD")
    if not folder:
        pytest.skip("ABLATION_BCCD is not set: it names the folder of the BCCD data set")
    return Path(folder).resolve()
