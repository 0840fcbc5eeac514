"""Which job trains which run: <study>/slurm/jobs.json, so that any later launch knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ablation.errors import StoreError
from ablation.files import exclusive_lock, write_json
from ablation.study.launchers.slurm import queue as slurm_queue


@dataclass(frozen=True)
class Submitted:
    """A run that was submitted.

    Attributes:
        label: arm and seed.
        name: of the submission, unlike any other's: the job can be found by it.
        index: the task's number in the job array; None: the job is no array.
        job: Slurm's id, such as 12_0; None while the submission has not been confirmed.
        log: what the job writes to; "" until it is confirmed.
    """

    label: str
    name: str
    index: int | None
    job: str | None = None
    log: str = ""

    def confirmed(self, job: str, folder: Path) -> Submitted:
        """With the id that Slurm gave to the submission (of an array: to the array)."""
        task_id = job if self.index is None else f"{job}_{self.index}"
        return replace(self, job=task_id, log=str(folder / f"{task_id}_0_log.out"))


def read_jobs(folder: Path) -> dict[str, Submitted]:
    """By the run's key; {} where nothing was ever submitted.

    Raises:
        StoreError: jobs.json is damaged.
    """
    path = folder / "jobs.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {key: Submitted(**row) for key, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: not readable ({error}); scancel the study's jobs, delete the file, launch again"
        ) from None


def write_jobs(folder: Path, jobs: dict[str, Submitted]) -> None:
    """Whole or not at all."""
    write_json(folder / "jobs.json", {key: asdict(job) for key, job in jobs.items()})


@contextmanager
def submitting(folder: Path) -> Iterator[dict[str, Submitted]]:
    """While it lasts, nobody else submits runs of this study; gives what has been submitted before.

    A launcher that was killed between sbatch and its answer left entries without an id: those are
    looked up by the name of their submission.
    """
    with exclusive_lock(folder / "jobs.lock", wait=True):
        jobs = read_jobs(folder)
        for name in {job.name for job in jobs.values() if job.job is None}:
            array_id = slurm_queue.job_named(name)
            for key, job in list(jobs.items()):
                if job.name == name:
                    if array_id is None:
                        del jobs[key]
                    else:
                        jobs[key] = job.confirmed(array_id, folder)
        yield jobs
