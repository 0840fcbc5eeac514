"""Shared by all tests: one thread (bit-identity depends on it), and the real data set where there is one."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from helpers.shared import close_session, copy_of, made_once, open_session
from helpers.studies import train_little

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent

LONGEST_FIRST = [
    "study/test_study.py",
    "study/test_own_trainer.py",
    "commands/confirm/test_confirm.py",
    "analyse/figures/test_figures.py",
    "commands/settle/test_settle.py",
    "study/forecast/test_forecast.py",
    "commands/test_predict_export.py",
    "training/test_run.py",
    "study/test_study_faults.py",
    "faults/test_launchers_killed.py",
    "faults/test_secrets.py",
    "faults/test_divergence.py",
    "study/launchers/local/test_local.py",
    "faults/test_changed_data.py",
    "faults/test_environment.py",
    "training/diagnostics/test_diagnostics.py",
    "test_config.py",
    "study/test_command_line.py",
    "analyse/report/test_html.py",
    "analyse/report/test_report.py",
    "faults/test_moved_project.py",
    "analyse/report/test_hostile_names.py",
    "analyse/statistics/test_sequential.py",
    "data/test_decode.py",
    "data/test_loader.py",
    "study/test_plan_file.py",
    "study/test_study_data.py",
    "study/test_wrong_usage.py",
    "objective/test_criterion.py",
    "training/test_foreign_states.py",
    "faults/test_store_opening.py",
    "tracking/test_store.py",
    "commands/settle/test_decision.py",
    "model/test_anchors.py",
    "commands/test_predict_threshold.py",
    "commands/test_import_runs.py",
    "commands/test_report.py",
    "faults/test_disk_full.py",
    "faults/test_damaged_checkpoint.py",
    "faults/test_signals.py",
    "fuzz/test_sweeps.py",
    "model/test_weights.py",
    "commands/check/test_check.py",
    "tracking/test_moved.py",
]
"""Files below tests/ that take five seconds and more.

`make test` gives whole files to its two workers, in the order of collection: with the long ones first, both
workers end at about the same time.
"""


def pytest_configure(config: pytest.Config) -> None:
    """The folder of what all workers share; they inherit the variable."""
    if not hasattr(config, "workerinput"):
        open_session()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        close_session()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file stays."""
    rank = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not visit it in every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def finished_study() -> Path:
    """The working folder of a finished study `little`: three arms, two seeds. Not to be written to."""
    return made_once("study", train_little)


@pytest.fixture
def copied_study(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of it to write to."""
    return copy_of(finished_study, tmp_path)


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The BCCD data set, read through ABLATION_BCCD."""
    folder = os.environ.get("ABLATION_BCCD")
    if not folder:
        pytest.skip("ABLATION_BCCD is not set: it names the folder of the BCCD data set")
    return Path(folder).resolve()
