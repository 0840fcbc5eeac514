"""Files that are either whole or not there: write to a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ablation.errors import NoRoom


def write_atomic(
    path: Path, write: Callable[[IO[bytes]], object], name: Callable[[], str] | None = None
) -> Path:
    """Call `write(file)` on a temporary file beside `path`, fsync it and rename it onto `path`.

    A reader, or a process killed at any moment, sees the former file or the new one, never a part.

    Args:
        name: the file's name in place of the path's, asked for after it was written: a name can depend on
            the content.

    Returns:
        The file's path.

    Raises:
        NoRoom: the disk is full; the former file is still there.
    """
    with _naming_a_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(made)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes the file private; results are meant to be shared like any other file.
            temporary.chmod(0o666 & ~_umask())
            final = path if name is None else path.with_name(name())
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return final


@contextlib.contextmanager
def _naming_a_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoRoom(
            f"{path}: could not be written: {error.strerror}; make room, then launch the same command again"
        ) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what a process that was killed inside `write_atomic` left below `folder`.

    Only for a folder that no other process writes to.
    """
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically, in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    write_atomic(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_line(path: Path, text: str) -> None:
    """Append one line and fsync, so that a finished epoch is on disk before the next begins."""
    with _naming_a_full_disk(path), path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_text(text: str) -> str:
    """The SHA-256 of a text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(count: int) -> str:
    """Bytes in the unit in which they are easiest to read: 84 MB, 1.2 GB."""
    number = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 10 or unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def safe_name(text: str) -> str:
    """A name from data or configuration as one path component: letters, digits, `.`, `_`, `-`, `=`.

    Never empty, never starting with a dot, so it can neither leave the folder nor hide in it.
    """
    name = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip(".-")
    return name[:120] or "unnamed"


def metric_name(name: str) -> str:
    """A metric's name as MLflow takes it: a class of the data may be called anything.

    MLflow refuses a whole epoch for one name with a character other than letters, digits, spaces and
    `_-.:/`, or that would lead elsewhere if it were a path. A name that has to be changed gets a part
    of its hash, so that two names stay two.
    """
    parts = [re.sub(r"[^\w .:-]+", "-", part).lstrip(".") for part in name.split("/")]
    plain = "/".join(part for part in parts if part)[:200]
    return plain if plain == name else f"{plain}-{sha256_text(name)[:6]}"


@contextlib.contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold an advisory lock on `path`; yields False soon where another process holds it.

    With `wait`, stays until the lock is free, and always yields True.

    The kernel drops the lock when the process ends, however it ends, so no stale lock can remain.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError:
                if attempt == _ATTEMPTS:
                    yield False
                    return
                time.sleep(0.02)
        yield True


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a folder, for which no file has to be left behind; waits until it is free.

    On a file system that cannot lock folders (some of NFS) nothing is locked.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_ATTEMPTS = 6
"""Someone who only looks (`is_locked`) holds the lock for microseconds; that is no reason to give up."""


def is_locked(path: Path) -> bool:
    """Whether a process holds the exclusive lock on `path`; creates and changes nothing."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
