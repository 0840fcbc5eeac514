"""Checkpoints: whole, verified, and enough to go on bit for bit.

A checkpoint's name carries its epoch and the SHA-256 of its content, so that one atomic rename
publishes both, and a file that was cut off or changed on disk is noticed before it is used.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import re
from pathlib import Path
from typing import Any

import torch

from ablation.errors import StoreError, one_line
from ablation.files import write_atomic

log = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{6})-([0-9a-f]{16})\.pt")
KEEP = 2


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name[:17], reverse=True)


def save(folder: Path, epoch: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of `epoch` finished epochs; older ones beyond the last two go afterwards.

    Args:
        state: tensors, numbers, strings, and dicts and lists of them (what weights_only loading
            accepts).
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"checkpoint-{epoch:06d}-{digest}.pt"
    write_atomic(path, lambda file: file.write(content))
    for old in checkpoints(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def load_newest(folder: Path, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any]] | None:
    """(finished epochs, state) of the newest checkpoint that is whole; None where there is none.

    A damaged checkpoint is reported and passed over in favour of the one before it.

    Raises:
        StoreError: the file is as it was written, but holds something else than tensors and numbers.
    """
    found = checkpoints(folder)
    for path, before in itertools.zip_longest(found, found[1:]):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != match[2]:
            instead = f"using {before.name}" if before is not None else "starting from the beginning"
            log.warning(
                "%s: damaged (its content does not have the hash in its name); %s instead", path, instead
            )
            continue
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except Exception as error:  # whole, but none of ours: it raises almost anything
            raise StoreError(
                f"{path}: not a checkpoint that can be read: {one_line(error, 200)}; "
                "delete it to use the one before"
            ) from None
        return int(match[1]), state
    return None


def save_weights(path: Path, model: torch.nn.Module, classes: list[str]) -> None:
    """The finished network alone, without what only training needs."""
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    write_atomic(path, lambda file: torch.save({"model": state, "classes": classes}, file))
