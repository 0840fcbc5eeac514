"""What a trainer's code and data are, by content: parts of the key of its runs."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from ablation.errors import DataError, UsageError, counted, one_line
from ablation.files import canonical_json, sha256_file, sha256_text

log = logging.getLogger(__name__)

_GIT_S = 60
_known_files: dict[tuple[str, int, int], str] = {}


def code_version(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """The content of a trainer's folder: {"sha256": of it, ...}, in git with the commit it stands on.

    Args:
        patterns: glob patterns of the files that count; none: git's tree of the folder and what tracked
            files differ from it. A commit that changes nothing in the folder changes nothing here.

    Raises:
        UsageError: no such folder, a pattern without a file, or neither git nor patterns.
    """
    if not folder.is_dir():
        raise UsageError(f"trainer.folder: {folder} is no folder; give that of the training script")
    if patterns:
        return {"sha256": _of_patterns(folder, patterns)}
    tree = _git(folder, "rev-parse", "HEAD:./")
    if tree is None:
        raise UsageError(
            f"trainer.files: git has no committed content of {folder}; name the files that are the "
            "trainer, as in trainer.files=['*.py']: their content is part of a run's key"
        )
    difference = _git(folder, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--relative") or b""
    _warn_of_untracked(folder)
    commit = _git(folder, "rev-parse", "HEAD") or b""
    content = hashlib.sha256(tree.strip() + b"\n" + difference).hexdigest()
    return {
        "sha256": content,
        "git_commit": commit.decode().strip(),
        "git_dirty": str(bool(difference)).lower(),
    }


def _of_patterns(folder: Path, patterns: Sequence[str]) -> str:
    digests: dict[str, str] = {}
    for pattern in patterns:
        try:
            paths = [path for path in folder.glob(pattern) if path.is_file()]
        except (ValueError, NotImplementedError) as error:
            raise UsageError(f"trainer.files: {pattern!r} is no pattern below the folder: {error}") from None
        if not paths:
            raise UsageError(f"trainer.files: {pattern!r} names no file in {folder}")
        digests |= {str(path.relative_to(folder)): file_digest(path) for path in paths}
    return sha256_text(canonical_json(digests))


def _git(folder: Path, *words: str) -> bytes | None:
    """What git prints; None where it cannot: no repository, no commit, no git."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


_warned: set[Path] = set()


def _warn_of_untracked(folder: Path) -> None:
    if folder in _warned:
        return
    _warned.add(folder)
    listed = (_git(folder, "ls-files", "--others", "--exclude-standard", "--", "*.py") or b"").decode()
    if files := listed.splitlines():
        what = counted(len(files), "Python file is", "Python files are")
        log.warning(
            "trainer.folder: %s in %s not tracked by git (%s): no part of a run's key; add it, or name it in "
            "trainer.files",
            *(what, folder, one_line(", ".join(files), 120)),
        )


def data_fingerprint(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 of the content of files, and of all files of folders, whatever they are called above that.

    Raises:
        DataError: one of them does not exist or cannot be read.
    """
    digests = []
    for name in names:
        path = folder / name
        try:
            if path.is_dir():
                inside = sorted(Path(root) / file for root, _, files in os.walk(path) for file in files)
                content = [[str(file.relative_to(path)), file_digest(file)] for file in inside]
                digests.append(sha256_text(canonical_json(content)))
            else:
                digests.append(file_digest(path))
        except OSError as error:
            raise DataError(f"trainer: data {path}: cannot be read: {error.strerror}") from None
    return sha256_text(canonical_json(digests))


def file_digest(path: Path) -> str:
    """SHA-256 of a file; read once a process while its size and time stay."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _known_files:
        _known_files[key] = sha256_file(path)
    return _known_files[key]
