"""What Slurm knows of jobs, asked of its controller: needs no accounting database.

submitit asks sacct alone, and where Slurm keeps no accounts it then waits for ever for a job that
was killed. squeue and scontrol are answered by the controller itself, which forgets an ended job
after a while (MinJobAge, usually five minutes): a job that it does not know is not alive.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable

from ablation.errors import AblationError, one_line

ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
"""States from which a job does not come back by itself; every other one is alive."""

_KILLED_FROM_OUTSIDE = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT")


def states(jobs: Iterable[str]) -> dict[str, str]:
    """The state of each of these jobs that the controller still knows, such as {"12_0": "RUNNING"}.

    Raises:
        AblationError: the controller does not answer, so that nothing can be said.
    """
    asked_for = set(jobs)
    if not asked_for:
        return {}
    ids = ",".join(sorted({job.partition("_")[0] for job in asked_for}))
    result = _ask(["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={ids}"])
    if result.returncode != 0:
        if "Invalid job id" in result.stderr:
            return {}
        raise AblationError(f"squeue does not answer: {one_line(result.stderr, 200)}; try again later")
    return {job: state for job, state in read_states(result.stdout).items() if job in asked_for}


def read_states(text: str) -> dict[str, str]:
    """squeue's lines of a job's id and its state."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def living(jobs: Iterable[str]) -> set[str]:
    """Those of these jobs that wait or run."""
    return {job for job, state in states(jobs).items() if state not in ENDED}


def job_named(name: str) -> str | None:
    """The id (of an array: of the whole array) of the newest job with this name; None: there is none.

    Raises:
        AblationError: the controller does not answer.
    """
    result = _ask(["squeue", "--noheader", "--states=all", "--format=%F", f"--name={name}"])
    if result.returncode != 0:
        raise AblationError(f"squeue does not answer: {one_line(result.stderr, 200)}; try again later")
    ids = sorted({int(text) for text in result.stdout.split() if text.isdigit()})
    return str(ids[-1]) if ids else None


def exit_reason(job: str) -> tuple[str, bool]:
    """(why a job ended, in a person's words; whether by its own fault), of a job that is not alive.

    By its own fault means that it would most likely end so again.
    """
    result = _ask(["scontrol", "--oneliner", "show", "job", job])
    fields = read_fields(result.stdout)
    if "JobState" not in fields:
        return f"job {job} is not known to Slurm (any more)", False
    state = fields["JobState"]
    code, _, number = fields.get("ExitCode", "0:0").partition(":")
    reason = fields.get("Reason", "None")
    if state == "OUT_OF_MEMORY":
        return f"job {job} OUT_OF_MEMORY: give it more with hydra.launcher.mem_gb", True
    if state == "TIMEOUT":
        return f"job {job} TIMEOUT: it reached hydra.launcher.time_h", False
    if state in _KILLED_FROM_OUTSIDE:
        return f"job {job} {state}" + (f" ({reason})" if reason != "None" else ""), False
    if number not in ("", "0"):
        return f"job {job} {state}: killed by {_signal_name(int(number))}", int(number) not in (9, 15)
    return f"job {job} {state}: exited with code {code}", True


def read_fields(text: str) -> dict[str, str]:
    """The Key=Value pairs of the first line of `scontrol --oneliner show job`; values without spaces."""
    line = text.partition("\n")[0]
    return dict(re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", line))


def requeue(job: str) -> str:
    """Put the job that asks back into the queue; "" where Slurm agreed, else why it did not."""
    result = _ask(["scontrol", "requeue", job])
    return "" if result.returncode == 0 else one_line(result.stderr, 200)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise AblationError(f"{command[0]}: not found; this machine has no Slurm commands") from None
    except subprocess.TimeoutExpired:
        raise AblationError(f"{command[0]} did not answer within a minute; try again later") from None
