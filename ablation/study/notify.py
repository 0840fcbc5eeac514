"""Tells the user's own program that a study ended, failed or needs attention (notify.command)."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ablation.config import RunConfig
from ablation.errors import AblationError, counted, one_line, redact
from ablation.study.plan_file import plan_file
from ablation.study.sweeper import StudySweeper
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_folder import read_plan

log = logging.getLogger(__name__)

SUMMARY = "{summary}"
"""Takes the place of the summary in a word of the command."""
_NOT_PASSED_ON = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")
_NEED_ATTENTION = ("FAILED", "DIVERGED", "KILLED", "STOPPED")


@dataclass
class Outcome:
    """What a command says of its end.

    Attributes:
        config: of a run of the study; None: of the study that was launched last.
        attention: why a person is needed although nothing failed; "" where none is.
        result: one line about a good end; "": the states of the runs.
    """

    config: RunConfig | None = None
    attention: str = ""
    result: str = ""


@contextmanager
def notified(command: str) -> Iterator[Outcome]:
    """Run notify.command once the body has ended, well or with an error.

    Nothing is sent where nothing was launched (wrong usage), nor after Ctrl-C: someone is there.
    """
    StudySweeper.launched = None
    outcome = Outcome()
    try:
        yield outcome
    except Exception as error:
        _send(command, outcome, one_line(error, 500))
        raise
    _send(command, outcome, "")


def _send(command: str, outcome: Outcome, failure: str) -> None:
    config = outcome.config or StudySweeper.launched
    if config is not None and config.notify.command:
        notify(command, config, outcome, failure)


def notify(command: str, config: RunConfig, outcome: Outcome, failure: str) -> None:
    """Send it; whatever goes wrong is one warning."""
    try:
        states = _states(config)
        bad = ", ".join(f"{states[state]} {state}" for state in _NEED_ATTENTION if states[state])
        event = "failed" if failure else "attention" if outcome.attention or bad else "ended"
        counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        text = failure or outcome.attention or outcome.result or counts
        summary = redact(one_line(f"{command} {config.study}: {event}: {text}", 500))
        content = {
            "event": event,
            "command": command,
            "study": config.study,
            "summary": summary,
            "folder": str(Path(config.out).absolute()),
            "text": summary,
            "runs": dict(states),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        _run(list(config.notify.command or ()), config.notify.timeout_s, summary, json.dumps(content))
    except Exception as error:  # the study's own result is what counts
        log.warning("notify.command: %s; the study is not affected", redact(one_line(error, 200)))


def _states(config: RunConfig) -> Counter[str]:
    """How many runs of the plan are in each state."""
    out = Path(config.out)
    path = plan_file(out, config.study)
    if not path.exists():  # of `settle`, whose runs are in two studies of other names
        return Counter()
    plan = read_plan(path)
    folders = (RunFolder.of(out, config.study, run.arm, run.seed, run.key) for run in plan.runs)
    return Counter("to do" if folder.state == "MISSING" else folder.state for folder in folders)


def _run(words: list[str], timeout_s: float, summary: str, content: str) -> None:
    """Run the words, without a shell, in a process group of their own that is ended after timeout_s.

    Raises:
        AblationError, OSError: it could not be started, took too long, or failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    process = subprocess.Popen(
        [word.replace(SUMMARY, summary) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment | {"ABLATION_SUMMARY": summary},
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(content.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        limit = counted(round(timeout_s), "second")
        raise AblationError(f"{words[0]} did not end within {limit} and was killed") from None
    if process.returncode != 0:
        text = one_line(errors.decode("utf-8", "replace"), 150)
        raise AblationError(
            f"{words[0]} ended with code {process.returncode}" + (f": {text}" if text else "")
        )
