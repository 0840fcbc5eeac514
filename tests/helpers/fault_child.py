"""What runs in a trial's own process: the real command, with a fault waiting at a chosen place.

A place is a moment at which the process is about to do, or has just done, something that lasts: half
of a write, an fsync, a rename, a deletion, a call to MLflow. Places are counted from 1 in the order
in which the process reaches them, so a place found in one run is the same place in the next.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.one_picture import without_figures

MLFLOW_CALLS = (
    "create_experiment", "create_run", "log_batch", "log_inputs", "log_artifact", "log_dict", "set_tag",
    "set_terminated", "update_run",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What happens in the process, and where.

    Attributes:
        at: number of the place; 0: at none.
        signal: sent to the process itself there; None: writes fail there, as on a full disk.
        record: file that gets the labels of all places, once the command has ended.
        keep: checkpoints that stay; 0: as many as the program keeps.
        nan_at_step: the training step, from 1, whose loss is not finite.
        only_gradient: that step's loss stays finite, only its gradient does not.
        epoch_s: every epoch takes this much longer.
        patience_s: how long the end of the run waits for a server; None: as long as the program does.
        figures: whether a report draws its figures; without, each is the same small picture.
    """

    at: int = 0
    signal: int | None = signal.SIGKILL
    record: str = ""
    keep: int = 0
    nan_at_step: int = 0
    only_gradient: bool = False
    epoch_s: float = 0.0
    patience_s: float | None = None
    figures: bool = True


class _Places:
    def __init__(self, fault: Fault) -> None:
        self.fault, self.labels = fault, list[str]()

    def reach(self, label: str) -> None:
        """Count the place, and let the fault happen if it is the one."""
        self.labels.append(label)
        if len(self.labels) != self.fault.at:
            return
        if self.fault.signal is not None:
            os.kill(os.getpid(), self.fault.signal)
        else:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def around(
        self, name: str, call: Callable[..., Any], of: Callable[..., str | None]
    ) -> Callable[..., Any]:
        """`call`, with a place before and one after it; `of` names the file, or None: none of ours."""

        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            subject = of(*args)
            if subject is None:
                return call(*args, **kwargs)
            self.reach(f"{subject}: before {name}")
            result = call(*args, **kwargs)
            self.reach(f"{subject}: after {name}")
            return result

        return watched


class _HalfFile:
    """A file whose first write has a place in its middle."""

    def __init__(self, file: Any, label: str, places: _Places) -> None:
        self._file, self._label, self._places, self._begun = file, label, places, False

    def write(self, data: Any) -> Any:
        if self._begun or len(data) < 2:
            return self._file.write(data)
        self._begun = True
        self._places.reach(f"{self._label}: before write")
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._places.reach(f"{self._label}: half written")
        self._file.write(data[half:])
        return len(data)

    def __enter__(self) -> _HalfFile:
        self._file.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self._file.__exit__(*details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _ours(path: Any) -> str | None:
    """The plain name of a file below the working folder: without a temporary's random part."""
    text = str(path)
    if not Path(text).is_absolute():
        text = str(Path.cwd() / text)
    if not text.startswith(f"{Path.cwd()}/"):
        return None
    name = re.sub(r"^\.(.*)\.\w+\.tmp$", r"\1", Path(text).name)
    return re.sub(r"^(checkpoint-\d{6})-[0-9a-f]{16}", r"\1", name)


def _of_descriptor(descriptor: Any) -> str | None:
    return _ours(Path(f"/proc/self/fd/{descriptor}").readlink())


def _watch_files(places: _Places) -> None:
    os.fsync = places.around("fsync", os.fsync, _of_descriptor)
    os.replace = places.around("rename", os.replace, lambda source, target, **_: _ours(target))
    os.link = places.around("link", os.link, lambda source, target, **_: _ours(target))
    os.unlink = places.around("deletion", os.unlink, lambda path, **_: _ours(path))
    fdopen, opened = os.fdopen, Path.open

    def watched_fdopen(descriptor: int, *args: Any, **kwargs: Any) -> Any:
        file, name = fdopen(descriptor, *args, **kwargs), _of_descriptor(descriptor)
        return file if name is None else _HalfFile(file, name, places)

    def watched_open(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = opened(path, mode, *args, **kwargs)
        return _HalfFile(file, path.name, places) if "a" in mode and path.suffix == ".jsonl" else file

    os.fdopen, Path.open = watched_fdopen, watched_open  # type: ignore[assignment, method-assign]


def _watch_mlflow(places: _Places) -> None:
    from mlflow import MlflowClient

    for name in MLFLOW_CALLS:
        watched = places.around(name, getattr(MlflowClient, name), lambda *_, **__: "MLflow")
        setattr(MlflowClient, name, watched)


def _change_training(fault: Fault) -> None:
    from ablation.tracking import mirror
    from ablation.training import checkpoint
    from ablation.training import run as train

    if fault.patience_s is not None:
        mirror.PATIENCE_S = fault.patience_s
    if fault.keep:
        checkpoint.KEEP = fault.keep
    if fault.epoch_s:
        epoch = train.Run.epoch

        def slow(*args: Any) -> Any:
            time.sleep(fault.epoch_s)
            return epoch(*args)

        train.Run.epoch = slow  # type: ignore[method-assign]
    if fault.nan_at_step:
        loss, steps = train.Run.loss, 0

        def broken(*args: Any) -> Any:
            nonlocal steps
            steps += 1
            parts = loss(*args)
            if steps == fault.nan_at_step:
                if fault.only_gradient:
                    parts.total.register_hook(lambda gradient: gradient * float("inf"))
                else:
                    parts = parts._replace(total=parts.total * float("nan"))
            return parts

        train.Run.loss = broken  # type: ignore[method-assign]


def command(arguments: list[str], fault_fields: dict[str, Any]) -> None:
    """Run `ablation ARGUMENTS` in the working folder. Ends the process."""
    fault = Fault(**fault_fields)
    os.setsid()
    import torch

    torch.set_num_threads(1)
    logging.getLogger().handlers.clear()
    places = _Places(fault)
    _watch_files(places)
    _watch_mlflow(places)
    _change_training(fault)
    if not fault.figures:
        without_figures().start()
    from ablation.cli import main

    sys.argv = ["ablation", *arguments]
    try:
        main()
    finally:
        if fault.record:
            Path(fault.record).write_text(json.dumps(places.labels))


def new_store(study: str) -> None:
    """Open the store of the working folder as a run does, and use it."""
    from ablation.tracking.store import Store

    store = Store.of(f"sqlite:///{Path.cwd()}/mlflow.db", None)
    store.prepare()
    store.experiment(study)
