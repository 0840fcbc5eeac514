"""Every image is opened once before a training starts, and not again while its file is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablation.data.decode import DamagedImage, decode
from ablation.files import sha256_text, write_json

_VERSION = 1
SETTLED_S = 2.0


@dataclass(frozen=True)
class CheckedImage:
    """What is known of one image file.

    Attributes:
        sha256: of the file's content; empty where it could not be read.
        width_px, height_px: as decoded; 0 where it could not be.
        damage: what is wrong with it, or None.
    """

    sha256: str
    width_px: int
    height_px: int
    damage: str | None


def check_image(path: Path) -> CheckedImage:
    """Read, hash and decode one file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return CheckedImage("", 0, 0, f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    try:
        height, width = decode(content).shape[:2]
    except DamagedImage as error:
        return CheckedImage(digest, 0, 0, str(error))
    return CheckedImage(digest, width, height, None)


def check_images(
    paths: Sequence[Path], memory: Path | None, settled_s: float = SETTLED_S
) -> list[CheckedImage]:
    """Check every file, in the order given.

    Args:
        memory: a folder that remembers the results, so that an unchanged file (same size, same
            times of change) is not decoded again; None checks everything anew.
        settled_s: only files that have not changed for so many seconds are remembered: a later change
            within the clock's grain would go unnoticed.
    """
    name = sha256_text(str(paths[0].parent.resolve()))[:16] if paths else ""
    memory_file = None if memory is None or not paths else memory / f"checked-{name}.json"
    known = _load(memory_file)
    stamps = [_stamp(path) for path in paths]
    checks: dict[int, CheckedImage] = {}
    for index, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
        entry = known.get(_key(path, paths[0].parent))
        if stamp is not None and entry is not None and entry["stamp"] == stamp:
            checks[index] = CheckedImage(**entry["found"])
    new = [index for index in range(len(paths)) if index not in checks]
    if new:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            checks.update(zip(new, pool.map(check_image, [paths[index] for index in new]), strict=True))
        folder, now = paths[0].parent, time.time()
        for index in new:
            stamp = stamps[index]
            if stamp is not None and now - max(stamp[1:]) / 1e9 > settled_s:
                known[_key(paths[index], folder)] = {"stamp": stamp, "found": asdict(checks[index])}
        _save(memory_file, known)
    return [checks[index] for index in range(len(paths))]


def _key(path: Path, folder: Path) -> str:
    """The file's name where all lie in one folder; elsewhere its path, since names may repeat."""
    return path.name if path.parent == folder else str(path.resolve())


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _load(memory_file: Path | None) -> dict[str, Any]:
    if memory_file is None:
        return {}
    try:
        stored = json.loads(memory_file.read_text())
        return dict(stored["images"]) if stored["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # only a memory: without it the files are checked again


def _save(memory_file: Path | None, known: dict[str, Any]) -> None:
    if memory_file is None:
        return
    with contextlib.suppress(OSError):
        write_json(memory_file, {"version": _VERSION, "images": known})
