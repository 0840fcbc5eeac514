"""Decoded images, kept so that a study decodes each one once and not once per run and epoch.

`disk`: one file per split in the cache folder, mapped into memory. Processes share it through the
system's page cache; the first one writes it under a lock while the others wait, and it appears by
a rename, so that nobody ever reads a part of it. Its header holds a hash (XXH3, 128 bits) of the key and
all pixels, which every process checks before its first read; a file that fails is written anew.
`ram`: the same bytes in anonymous memory. Runs in one process share them, and so do the workers
of its loader; other processes hold their own.
`none`: every read decodes.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Example, Image, Split
from ablation.errors import DataError, UsageError
from ablation.files import exclusive_lock, sha256_text, size_text, write_atomic

log = logging.getLogger(__name__)

MODES = ("ram", "disk", "none")
_HEADER_BYTES = 64
_BLOCK_BYTES = 1 << 20
_SETTLED_NS = 100_000_000  # a later change within the clock's grain would leave the same times
SPLITS_IN_RAM = 4
Stamp = tuple[int, int, int, int]
_ram: OrderedDict[str, Pixels] = OrderedDict()
_verified: dict[Path, Stamp] = {}
"""Files whose content this process has checked, as they were then."""


def cached(split: Split, *, mode: str, folder: Path, key: str) -> Split:
    """`split` with its images kept as `mode` says. Nothing is decoded before the first read.

    Args:
        mode: "ram", "disk" or "none".
        folder: where the files of mode "disk" lie.
        key: names the pixels: equal keys, equal images in equal order.
    """
    return split if mode == "none" else CachedSplit(split, mode, folder, key)


def _header(digest: bytes) -> bytes:
    return (b"ablation pixels 2 xxh3 " + digest.hex().encode()).ljust(_HEADER_BYTES, b"\0")


class Pixels:
    """The images of a split, one after the other, in one buffer after a header."""

    def __init__(self, path: Path, examples: Sequence[Example], keep: int | None = None) -> None:
        with path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)
        self._starts = starts(examples)
        self._sizes = [(example.height_px, example.width_px, 3) for example in examples]
        self.path = path
        if keep is not None:  # a nameless file is freed with its last descriptor
            weakref.finalize(self, os.close, keep)

    def __getitem__(self, index: int) -> Image:
        """(height, width, 3), read-only, without a copy."""
        pixels = self._bytes[self._starts[index] : self._starts[index + 1]]
        return pixels.reshape(self._sizes[index])


def starts(examples: Sequence[Example]) -> list[int]:
    """The byte at which each image begins, and last the length of the whole."""
    sizes = [example.width_px * example.height_px * 3 for example in examples]
    return [int(value) for value in np.cumsum([_HEADER_BYTES, *sizes], dtype=np.int64)]


class CachedSplit(Split):
    """A split that reads its images from Pixels."""

    def __init__(self, source: Split, mode: str, folder: Path, key: str) -> None:
        self.source, self.mode, self.folder = source, mode, folder
        self.examples, self.faults = source.examples, source.faults
        sizes = [[example.width_px, example.height_px] for example in self.examples]
        self.key = sha256_text(f"{key} {sizes}")[:32]
        self._pixels: Pixels | None = None

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def read(self, index: int) -> Image:
        if self._pixels is None:
            self._pixels = self._open()
        return self._pixels[index]

    def prepare(self) -> None:
        """Decode everything now, unless some run has done it already."""
        if self._pixels is None and len(self):
            self._pixels = self._open()

    def _open(self) -> Pixels:
        if self.mode == "disk":
            return _on_disk(self.source, self.folder / f"pixels-{self.key}.bin", self.key)
        if self.key not in _ram:
            _ram[self.key] = _in_memory(self.source, self.key)
        _ram.move_to_end(self.key)
        while len(_ram) > SPLITS_IN_RAM:
            _ram.popitem(last=False)
        return _ram[self.key]

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's worker: where the pixels are and what this process has checked, never the pixels."""
        self.prepare()
        state = dict(self.__dict__)
        state["_pixels"] = None
        if self._pixels is not None:
            path = self._pixels.path
            state["_pixels"] = path, _verified.get(path)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        place = state.pop("_pixels")
        self.__dict__.update(state)
        self._pixels = None
        if place is None:
            return
        path, verified = place
        if self.mode == "ram":
            self._pixels = Pixels(path, self.examples)
        elif verified is not None and verified == stamp(path):
            _verified[path] = verified
            self._pixels = Pixels(path, self.examples)


def _write(split: Split, key: str, file: IO[bytes]) -> None:
    import xxhash  # here, so that data without a cache does not need it

    digest = xxhash.xxh3_128(key.encode())
    file.write(bytes(_HEADER_BYTES))
    for index, example in enumerate(split.examples):
        image = split.read(index)
        if image.shape != (example.height_px, example.width_px, 3):
            raise DataError(
                f"{example.name}: the image is {image.shape[1]} x {image.shape[0]} px, but was "
                f"{example.width_px} x {example.height_px} px when the data set was opened"
            )
        pixels = np.ascontiguousarray(image).data
        digest.update(pixels)
        file.write(pixels)
    file.seek(0)
    file.write(_header(digest.digest()))


def _in_memory(split: Split, key: str) -> Pixels:
    needed = starts(split.examples)[-1]
    free = _free_memory()
    if free is not None and needed > 0.8 * free:
        raise UsageError(
            f"data.cache=ram: the decoded images take {size_text(needed)} and {size_text(free)} "
            "of memory are free; use data.cache=disk or data.cache=none"
        )
    if not hasattr(os, "memfd_create"):
        raise UsageError("data.cache=ram needs Linux; use data.cache=disk here")
    # A file without a name: freed with the process however it ends, and other processes of the
    # same user can map it through /proc as long as this one lives.
    descriptor = os.memfd_create("ablation-pixels", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            _write(split, key, file)
        return Pixels(Path(f"/proc/{os.getpid()}/fd/{descriptor}"), split.examples, keep=descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _free_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _on_disk(split: Split, path: Path, key: str) -> Pixels:
    needed = starts(split.examples)[-1]
    try:
        while not _verify(path, needed, key):
            with exclusive_lock(path.with_suffix(".lock")) as locked:
                if not locked:
                    time.sleep(0.1)
                    continue
                if not _verify(path, needed, key):
                    _build(split, path, needed, key)
        return Pixels(path, split.examples)
    except OSError as error:
        raise UsageError(
            f"data.cache_dir: {path.parent} cannot be used ({error.strerror or error}); name a folder "
            "that can be written, or use data.cache=ram or data.cache=none"
        ) from error


def _build(split: Split, path: Path, needed: int, key: str) -> None:
    if path.exists():
        log.warning("data: %s: damaged, or written by another version; the images are decoded anew", path)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)  # of a writer that was killed: the lock shows that none lives
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UsageError(
            f"data.cache=disk: the decoded images take {size_text(needed)} and {path.parent} has "
            f"{size_text(free)} free; set data.cache_dir to a larger disk, or data.cache=none"
        )
    write_atomic(path, lambda file: _write(split, key, file))
    if not _verify(path, needed, key):
        raise DataError(
            f"{path}: what was just written reads back differently, so the disk is at fault; set "
            "data.cache_dir to another one, or data.cache=none"
        )


def _verify(path: Path, length: int, key: str) -> bool:
    """Whether the file holds what `_write` wrote for this key: read in full, once per process."""
    import xxhash

    before = stamp(path)
    if before is None or before[1] != length:
        return False
    if _verified.get(path) == before:
        return True
    digest, block = xxhash.xxh3_128(key.encode()), bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        try:
            header = file.read(_HEADER_BYTES)
            while count := file.readinto(block):
                digest.update(memoryview(block)[:count])
        except OSError:  # a part of the disk that cannot be read any more
            return False
    if header != _header(digest.digest()) or stamp(path) != before:
        return False
    if time.time_ns() - max(before[2:]) > _SETTLED_NS:
        _verified[path] = before
    return True


def stamp(path: Path) -> Stamp | None:
    """What changes with a file's content: inode, size in bytes, times of change; None: no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
