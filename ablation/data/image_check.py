"""Every image is opened once before a training starts, and not again while its file is unchanged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from ablation.data.decode import (
    MAX_PIXELS,
    DamagedImage,
    OversizedImage,
    decode_stored,
    read_content,
    read_header,
)
from ablation.data.orientation import UPRIGHT
from ablation.files import canonical_json, sha256_text, write_text

SETTLED_S = 2.0
_VERSION = 3
_THREADS = 4
_LARGE_PIXELS, _LARGE_BYTES = 8_000_000, 16_000_000
_large = Lock()
"""Held while a large image is decoded: of those only one at a time, so that memory stays bounded."""

Stamp = tuple[int, int, int]
"""Size in bytes and both times of change in ns of a file: equal, then the file is taken as unchanged."""


@dataclass(frozen=True)
class CheckedImage:
    """What is known of one image file.

    Attributes:
        sha256: of the file's content; empty where it could not be read.
        width_px, height_px: as decoded, upright; 0 where it could not be.
        orientation: 1 to 8, see orientation.py.
        damage: what is wrong with it, or None.
        converted: what makes it no 8-bit RGB image ("grey", "16-bit RGBA"), or empty.
        oversized: it exceeds data.max_pixels; not remembered, since another limit may let it pass.
    """

    sha256: str
    width_px: int
    height_px: int
    damage: str | None
    orientation: int = UPRIGHT
    converted: str = ""
    oversized: bool = False


def check_image(path: Path, max_pixels: int = MAX_PIXELS) -> CheckedImage:
    """Read, hash and decode one file."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LARGE_BYTES:
            with _large:
                return _check(path, max_pixels, alone=True)
    return _check(path, max_pixels, alone=False)


def _check(path: Path, max_pixels: int, alone: bool) -> CheckedImage:
    digest = ""
    try:
        content = read_content(path, max_pixels)
        digest = hashlib.sha256(content).hexdigest()
        header = read_header(content, max_pixels)
        width, height = header.upright_px
        with contextlib.nullcontext() if alone or width * height < _LARGE_PIXELS else _large:
            decode_stored(content, header)
    except DamagedImage as error:
        return CheckedImage(digest, 0, 0, str(error), oversized=isinstance(error, OversizedImage))
    return CheckedImage(digest, width, height, None, header.orientation, header.converted)


def check_images(
    paths: Sequence[Path],
    memory: Path | None,
    settled_s: float = SETTLED_S,
    max_pixels: int = MAX_PIXELS,
) -> list[CheckedImage]:
    """Check every file, in the order given.

    Args:
        memory: a folder that remembers the results, so that an unchanged file (same size, same
            times of change) is not decoded again; None checks everything anew.
        settled_s: only files that have not changed for so many seconds are remembered: a later change
            within the clock's grain would go unnoticed.
        max_pixels: width x height of the largest image that is decoded.
    """
    name = sha256_text(ascii(os.path.abspath(paths[0].parent)))[:16] if paths else ""  # noqa: PTH100
    memory_file = None if memory is None or not paths else memory / f"checked-{name}.json"
    known = {} if memory_file is None else _load(memory_file)
    stamps = [_stamp(path) for path in paths]
    checks: dict[int, CheckedImage] = {}
    for index, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
        entry = known.get(_key(path, paths[0].parent))
        if entry is not None and entry[0] == stamp and entry[1].width_px * entry[1].height_px <= max_pixels:
            checks[index] = entry[1]
    new = [index for index in range(len(paths)) if index not in checks]
    if new:
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            results = pool.map(lambda index: check_image(paths[index], max_pixels), new)
            checks.update(zip(new, results, strict=True))
        folder, now = paths[0].parent, time.time()
        for index in new:
            stamp, check = stamps[index], checks[index]
            settled = stamp is not None and now - max(stamp[1:]) / 1e9 > settled_s
            if stamp is not None and settled and not check.oversized:
                known[_key(paths[index], folder)] = stamp, check
        if memory_file is not None:
            _save(memory_file, known)
    return [checks[index] for index in range(len(paths))]


def _key(path: Path, folder: Path) -> str:
    """The file's name where all lie in one folder; elsewhere its path, since names may repeat."""
    return path.name if path.parent == folder else os.path.abspath(path)  # noqa: PTH100


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


# The memory is a cache: it is used if it holds exactly what was written to it, and else made anew.


def _digest(memory_file: Path, images: object) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(f"{memory_file.name} {canonical_json(images)}".encode())


def _load(memory_file: Path) -> dict[str, tuple[Stamp, CheckedImage]]:
    try:
        stored = json.loads(memory_file.read_bytes())
        images = stored["images"]
        if stored["version"] != _VERSION or stored["xxh3"] != _digest(memory_file, images):
            return {}
        return {
            name: ((size, modified, changed), CheckedImage(*check))
            for name, (size, modified, changed, *check) in images.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _save(memory_file: Path, known: Mapping[str, tuple[Stamp, CheckedImage]]) -> None:
    images = {name: [*stamp, *dataclasses.astuple(check)] for name, (stamp, check) in known.items()}
    content = {"version": _VERSION, "xxh3": _digest(memory_file, images), "images": images}
    with contextlib.suppress(OSError):
        write_text(memory_file, canonical_json(content) + "\n")
