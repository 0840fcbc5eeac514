"""Studies on a real Slurm of one node, started for these tests and gone after them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.command import ROOT, TINY, ablation, error_line, metrics, run_folders
from helpers.foreign import put_quick_trainer
from helpers.slurm_cluster import Cluster, cluster, missing

from ablation.study.launchers.slurm import queue as slurm_queue
from ablation.study.launchers.slurm.registry import Submitted, submitting, write_jobs
from ablation.tracking.run_folder import RunFolder

pytest.importorskip("submitit", reason="submitit is not installed (the extra `slurm`)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())} (slurm-wlm, munge)"),
]

SLURM = ["hydra/launcher=slurm", "hydra.launcher.poll_s=0.5"]
RUNS = [*TINY, "loss=bce", "train.epochs=16", "train.eval_every=16"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """The cluster; this process and those that it starts are its clients."""
    # Not below pytest's folder: that is private, and munge wants its socket to be within reach of all.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        cluster(Path(folder)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
        patch.setenv("PYTHONPATH", str(ROOT))
        yield running


def until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def run_of(folder: Path, seed: int) -> RunFolder:
    (path,) = folder.glob(f"runs/*/*/seed{seed}-*")
    return RunFolder(path)


def jobs_of(folder: Path) -> dict[str, str]:
    """Label -> job id."""
    content = json.loads((folder / "runs/default/slurm/jobs.json").read_text())
    return {row["label"]: row["job"] for row in content.values()}


def has_checkpoint(folder: Path, *seeds: int) -> bool:
    return all(list(folder.glob(f"runs/*/*/seed{seed}-*/checkpoint-*")) for seed in seeds)


def in_background(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    with (folder / "output").open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ablation.cli", *arguments],
            cwd=folder,
            stderr=file,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    """The same numbers in every epoch and the same weights, bit for bit."""
    assert metrics(one.path) == metrics(other.path)
    first, second = (torch.load(run.file("weights.pt"), weights_only=True)["model"] for run in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_befalls_a_job_costs_that_run_alone_and_no_number(slurm: Cluster, tmp_path: Path) -> None:
    """kill -9, scancel and a signal to make room, each of one job; a fourth is left alone."""
    study = ["train", "-m", *RUNS, "seed=0,1,2,3"]
    launcher = in_background(tmp_path, *study, *SLURM)
    until(lambda: has_checkpoint(tmp_path, 0))
    jobs = jobs_of(tmp_path)
    killed_at = time.monotonic()
    os.kill(run_of(tmp_path, 0).read_json("state.json")["pid"], signal.SIGKILL)
    until(lambda: has_checkpoint(tmp_path, 1))
    slurm.ask("scancel", jobs["bce seed 1"])
    until(lambda: has_checkpoint(tmp_path, 2))
    slurm.ask("scancel", "--signal=USR2", "--batch", jobs["bce seed 2"])
    until(lambda: "FAILED   bce seed 0" in (tmp_path / "output").read_text())
    assert time.monotonic() - killed_at < 60
    assert launcher.wait(200) == 1
    output = (tmp_path / "output").read_text()
    log = tmp_path / "runs/default/slurm" / f"{jobs['bce seed 0']}_0_log.out"
    assert log.is_file()
    assert (
        f"ablation: 2 of 4 runs failed: bce seed 0: job {jobs['bce seed 0']} FAILED: killed by SIGKILL "
        f"(log: {log}); bce seed 1: its job was cancelled or preempted; launch it again"
    ) in output
    assert [run_of(tmp_path, seed).state for seed in range(4)] == ["KILLED", "KILLED", "FINISHED", "FINISHED"]
    made_room = (tmp_path / "runs/default/slurm" / f"{jobs['bce seed 2']}_0_log.out").read_text()
    assert "stopped to make room; requeued" in made_room
    assert "resumed after epoch" in made_room
    # Again: the two that were interrupted, and no other.
    again = ablation(tmp_path, *study, *SLURM)
    assert "2 done already, 2 to do" in again.stderr
    assert "submitted 2 runs as job" in again.stderr
    # And once more: nothing.
    assert "4 done already, 0 to do" in ablation(tmp_path, *study, *SLURM).stderr
    here = tmp_path / "here"
    here.mkdir()
    ablation(here, *study)
    for seed in range(4):
        assert_same_run(run_of(tmp_path, seed), run_of(here, seed))


def test_the_submitting_process_may_go_away(slurm: Cluster, tmp_path: Path) -> None:
    """Its jobs go on, and another launch submits only what has no job: neither running nor waiting."""
    first = in_background(tmp_path, "train", "-m", *RUNS, "seed=0,1", *SLURM, "hydra.launcher.max_parallel=1")
    until(lambda: has_checkpoint(tmp_path, 0))
    first.send_signal(signal.SIGKILL)
    first.wait()
    jobs = jobs_of(tmp_path)
    study = ["train", "-m", *RUNS, "seed=0,1,2", *SLURM]
    left = ablation(tmp_path, *study, "hydra.launcher.wait=false")
    assert "1 runs have a job already" in left.stderr  # the one that waits; the other is known to run
    assert "submitted 1 runs as job" in left.stderr
    assert "ablation status study=default" in left.stderr
    now = jobs_of(tmp_path)
    assert {label: now[label] for label in jobs} == jobs
    ablation(tmp_path, *study)  # waits for what is left
    until(lambda: all(run_of(tmp_path, seed).state == "FINISHED" for seed in range(3)))
    assert jobs_of(tmp_path) == now
    assert len(run_folders(tmp_path)) == 3


def test_a_job_whose_submission_was_cut_off_is_found_by_its_name(slurm: Cluster, tmp_path: Path) -> None:
    slurm.ask("sbatch", "--job-name=cut-off", f"--output={tmp_path}/x", "--array=0-1", "--wrap=sleep 60")
    number = slurm_queue.job_named("cut-off")
    assert number is not None
    write_jobs(
        tmp_path,
        {
            "a": Submitted("a", "cut-off", 0),
            "b": Submitted("b", "cut-off", 1),
            "c": Submitted("c", "never-submitted", None),
        },
    )
    with submitting(tmp_path) as jobs:
        assert {key: job.job for key, job in jobs.items()} == {"a": f"{number}_0", "b": f"{number}_1"}
        assert slurm_queue.living([f"{number}_0", f"{number}_1", "999999"]) == {f"{number}_0", f"{number}_1"}
    slurm.ask("scancel", number)
    until(lambda: not slurm_queue.living([f"{number}_0"]))
    assert slurm_queue.exit_reason(f"{number}_0") == (f"job {number}_0 CANCELLED", False)
    assert slurm_queue.exit_reason("999999") == ("job 999999 is not known to Slurm (any more)", False)


def test_what_sbatch_refuses_is_one_line(slurm: Cluster, tmp_path: Path) -> None:
    study = ["train", "-m", *RUNS, "seed=0,1", *SLURM, "hydra.launcher.partition=nowhere"]
    message = error_line(ablation(tmp_path, *study, check=1))
    assert "sbatch refused the study: " in message and "invalid partition" in message
    assert jobs_of(tmp_path) == {}


def test_settle_launches_its_steps_as_jobs(slurm: Cluster, tmp_path: Path) -> None:
    """One arm a side: four pairs decide, each run a job; launched again, nothing is submitted."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "q.yaml").write_text(
        "# @package _global_\nstudy: q\narms: [{loss: bce}, {loss: focal, loss.gamma: 2}]\n"
    )
    command = ["settle", "sweeps=q", "max_seeds=4", "analysis.margin=0.2", *TINY, *SLURM]
    ended = ablation(tmp_path, *command, "tracking.enabled=false")
    assert ended.stdout.startswith("No useful difference") and len(run_folders(tmp_path)) == 8
    jobs = (tmp_path / "runs" / "q_decide" / "slurm" / "jobs.json").read_text()
    assert ablation(tmp_path, *command, "tracking.enabled=false").stdout == ended.stdout
    assert (tmp_path / "runs" / "q_decide" / "slurm" / "jobs.json").read_text() == jobs


def test_a_trainer_of_ones_own_runs_as_a_job_and_is_cancelled_with_it(slurm: Cluster, tmp_path: Path) -> None:
    """Seed 1 fails, with its job's log; seed 2 hangs, and nothing of it is left once it is cancelled."""
    fault = "seed == 1 and sys.exit('no such seed'); seed == 2 and time.sleep(300)"
    folder = put_quick_trainer(tmp_path, fault)
    words = ["train", "-m", "sweeps=quick", "arms=null", "arm=x", "seed=0,1,2", *SLURM]
    launcher = in_background(folder, *words)
    until(lambda: (folder / "runs/quick/slurm/jobs.json").exists() and len(run_folders(folder)) == 3)
    until(lambda: run_of(folder, 0).state == "FINISHED" and run_of(folder, 1).state == "FAILED")
    (job,) = [
        row["job"]
        for row in json.loads((folder / "runs/quick/slurm/jobs.json").read_text()).values()
        if row["label"].endswith("seed 2")
    ]
    until(lambda: (run_of(folder, 2).path / "trainer" / "m.csv").exists())
    subprocess.run(["scancel", job], check=True)
    assert launcher.wait(120) == 1
    output = (folder / "output").read_text()
    assert "the trainer exited with code 1; its last line: no such seed (log: " in output
    assert run_of(folder, 2).state == "KILLED"
    left = subprocess.run(["pgrep", "-f", str(run_of(folder, 2).path)], capture_output=True, check=False)
    assert left.stdout == b""
