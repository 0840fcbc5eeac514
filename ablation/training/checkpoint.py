"""Checkpoints: whole, verified, and enough to go on bit for bit.

A checkpoint's name carries its epoch and the SHA-256 of its content, so that one atomic rename
publishes both, and a file that was cut off or changed on disk is noticed before it is used.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import torch

from ablation.errors import StoreError, one_line
from ablation.files import write_atomic
from ablation.model.weights import why_not_plain

log = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{6})-([0-9a-f]{16})\.pt")
KEEP = 2
STATE_KEYS = {"model", "average", "optimizer", "calibration", "classes"}
"""What training goes on from."""


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    paths = [path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: path.name[:17], reverse=True)


def save(folder: Path, epoch: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of `epoch` finished epochs; older ones beyond the last two go afterwards.

    It goes to the file piece by piece, without a copy of the whole in memory.

    Args:
        state: tensors, numbers, strings, and dicts and lists of them (what weights_only loading
            accepts).
    """
    digest = hashlib.sha256()
    stem = f"checkpoint-{epoch:06d}"
    path = write_atomic(
        folder / f"{stem}.pt",
        lambda file: _write(state, HashedOutput(file, digest)),
        lambda: f"{stem}-{digest.hexdigest()[:16]}.pt",
    )
    for old in checkpoints(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def _write(state: Any, output: HashedOutput) -> None:
    """torch.save with its errors, in a thread: the exception of a signal must not pass through its C++."""
    with ThreadPoolExecutor(1, "checkpoint") as thread:
        thread.submit(torch.save, state, cast(IO[bytes], output)).result()
    if output.error is not None:
        raise output.error


class HashedOutput:
    """What torch.save writes to: a file, with the hash of what was written.

    torch writes from C++, which an exception may not pass through. It is kept, and what follows is dropped.
    """

    def __init__(self, file: IO[bytes], digest: Any) -> None:
        self.error: OSError | None = None
        self._file, self._digest = file, digest

    def write(self, data: Any) -> int:
        """Append bytes."""
        if self.error is None:
            try:
                self._file.write(data)
                self._digest.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Called by torch; the file is flushed when it is whole."""


class Schedule:
    """When the next checkpoint is due, so that writing them takes at most a share of the time.

    After one that took c seconds the next is due c / share seconds later.

    Args:
        share: in (0, 1]; 1: always.
    """

    def __init__(self, share: float) -> None:
        self._share, self._cost_s, self._ended = share, 0.0, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether one may be written now; the first may always."""
        return self._share == 1 or (time.monotonic() - self._ended) * self._share >= self._cost_s

    def written(self, seconds: float) -> None:
        """One has just been written and took that long."""
        self._cost_s, self._ended = seconds, time.monotonic()


def load_newest(folder: Path, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any]] | None:
    """(finished epochs, state) of the newest checkpoint that is whole; None where there is none.

    A damaged checkpoint is reported and passed over in favour of the one before it.

    Raises:
        StoreError: the file is as it was written, but holds something else than tensors and numbers.
    """
    newest_first = checkpoints(folder)
    for path, before in itertools.zip_longest(newest_first, newest_first[1:]):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest()[:16] != match[2]:
                instead = f"using {before.name}" if before is not None else "starting from the beginning"
                log.warning(
                    "%s: damaged (its content does not have the hash in its name); %s instead", path, instead
                )
                continue
            file.seek(0)
            try:
                state = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # whole, but none of ours: it raises almost anything
                raise StoreError(
                    f"{path}: not a checkpoint that can be read: {one_line(error, 200)}; "
                    "delete it to use the one before"
                ) from None
        _check(path, state)
        return int(match[1]), state
    return None


def _check(path: Path, state: Any) -> None:
    """Raise StoreError unless the state has STATE_KEYS and every tensor in it is a plain one."""
    wrong = ""
    if not isinstance(state, dict) or not set(state) >= STATE_KEYS:
        wrong = f"it must have {', '.join(sorted(STATE_KEYS))}"
    else:
        reasons = (why_not_plain(tensor, integers=True) for tensor in _tensors(state))
        wrong = next((f"a tensor in it is {reason}" for reason in reasons if reason), "")
    if wrong:
        raise StoreError(f"{path}: not a checkpoint of a run: {wrong}; delete it to use the one before")


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Every tensor of nested dicts and lists."""
    pending = [state]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        elif isinstance(value, torch.Tensor):
            yield value


def save_weights(path: Path, model: torch.nn.Module, classes: list[str]) -> None:
    """The finished network alone, without what only training needs."""
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    content = {"model": state, "classes": classes}
    write_atomic(path, lambda file: _write(content, HashedOutput(file, hashlib.sha256())))
