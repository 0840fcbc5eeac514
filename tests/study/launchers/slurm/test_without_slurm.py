"""The Slurm launcher as far as it can be tested without Slurm; tests/study/launchers/slurm has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import ROOT, TINY, error_line

from ablation.errors import AblationError, StoreError, UsageError
from ablation.study.launchers.slurm import queue as slurm_queue
from ablation.study.launchers.slurm.launcher import SlurmLauncher
from ablation.study.launchers.slurm.registry import Submitted, read_jobs, write_jobs

# As printed by Slurm 22.05.
SQUEUE = "5_1 FAILED\n5_0 RUNNING\n5_2 PENDING\n7 COMPLETED\n"
SCONTROL = (
    "JobId=6 ArrayJobId=5 ArrayTaskId=1 JobName=ablation-x UserId=root(0) JobState=FAILED "
    "Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=0 ExitCode={code} DerivedExitCode=0:0\n"
)


def test_states_are_read_from_squeue() -> None:
    expected = {"5_0": "RUNNING", "5_1": "FAILED", "5_2": "PENDING", "7": "COMPLETED"}
    assert slurm_queue.read_states(SQUEUE) == expected


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder of programs, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, says: str, code: int = 0, error: str = "") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\necho '{error}' >&2\nexit {code}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0:9", ("job 5_1 FAILED: killed by SIGKILL", False)),
        ("0:11", ("job 5_1 FAILED: killed by SIGSEGV", True)),
        ("3:0", ("job 5_1 FAILED: exited with code 3", True)),
    ],
)
def test_why_a_job_ended(programs: Path, code: str, expected: tuple[str, bool]) -> None:
    program(programs, "scontrol", SCONTROL.format(code=code))
    assert slurm_queue.exit_reason("5_1") == expected


def test_a_queue_that_does_not_answer_is_not_taken_for_an_empty_one(programs: Path) -> None:
    program(programs, "squeue", "", 1, "slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(AblationError, match=r"squeue does not answer.*Unable to contact"):
        slurm_queue.living(["5_1"])
    program(programs, "squeue", "", 1, "slurm_load_jobs error: Invalid job id specified")
    assert slurm_queue.living(["5_1"]) == set()
    program(programs, "squeue", SQUEUE)
    assert slurm_queue.living(["5_0", "5_1", "5_2", "8"]) == {"5_0", "5_2"}


def test_jobs_are_kept(tmp_path: Path) -> None:
    jobs = {"k": Submitted("bce seed 0", "n", None).confirmed("12", tmp_path), "l": Submitted("x", "n", 3)}
    assert jobs["k"].job == "12" and jobs["k"].log == f"{tmp_path}/12_0_log.out"
    assert jobs["l"].confirmed("12", tmp_path).job == "12_3"
    assert read_jobs(tmp_path) == {}
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == jobs
    (tmp_path / "jobs.json").write_text('{"k": {"lable": 1}}')
    with pytest.raises(StoreError, match=r"jobs\.json: not readable"):
        read_jobs(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("time_h", 0.001), ("time_h", 0.03), ("mem_gb", 0.0), ("gpus", 2), ("cpus", 0)],
        *[("max_parallel", 0), ("notice_s", 0), ("max_requeues", -1), ("poll_s", 0.0)],
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"hydra\.launcher\.{name}: found "):
        SlurmLauncher(**{name: value})


def test_without_slurm_one_line_says_so(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    result = subprocess.run(
        [sys.executable, "-m", "ablation.cli", "train", "-m", *TINY, "seed=0,1", "hydra/launcher=slurm"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert error_line(result).startswith("ablation: hydra/launcher=slurm: sbatch")
