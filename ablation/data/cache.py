"""Decoded images, kept so that a study decodes each one once and not once per run and epoch.

`disk`: one file per split in the cache folder, mapped into memory. Processes share it through the
system's page cache; the first one writes it under a lock while the others wait, and it appears by
a rename, so that nobody ever reads a part of it.
`ram`: the same bytes in anonymous memory. Runs in one process share them, and so do the workers
of its loader; other processes hold their own.
`none`: every read decodes.
"""

from __future__ import annotations

import contextlib
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
from ablation.files import exclusive_lock, sha256_text, write_atomic

MODES = ("ram", "disk", "none")
_MAGIC = b"ablation pixels 1".ljust(64, b"\0")
SPLITS_IN_RAM = 4
_ram: OrderedDict[str, Pixels] = OrderedDict()


def cached(split: Split, *, mode: str, folder: Path, key: str) -> Split:
    """`split` with its images kept as `mode` says. Nothing is decoded before the first read.

    Args:
        mode: "ram", "disk" or "none".
        folder: where the files of mode "disk" lie.
        key: names the pixels: equal keys, equal images in equal order.
    """
    return split if mode == "none" else CachedSplit(split, mode, folder, key)


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
    return [int(value) for value in np.cumsum([len(_MAGIC), *sizes], dtype=np.int64)]


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
            return _on_disk(self.source, self.folder / f"pixels-{self.key}.bin")
        if self.key not in _ram:
            _ram[self.key] = _in_memory(self.source)
        _ram.move_to_end(self.key)
        while len(_ram) > SPLITS_IN_RAM:
            _ram.popitem(last=False)
        return _ram[self.key]

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's worker: where the pixels are, never the pixels."""
        self.prepare()
        state = dict(self.__dict__)
        state["_pixels"] = None if self._pixels is None else self._pixels.path
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = state.pop("_pixels")
        self.__dict__.update(state)
        self._pixels = None if path is None else Pixels(path, self.examples)


def _write(split: Split, file: IO[bytes]) -> None:
    file.write(_MAGIC)
    for index, example in enumerate(split.examples):
        image = split.read(index)
        if image.shape != (example.height_px, example.width_px, 3):
            raise DataError(
                f"{example.name}: the image is {image.shape[1]} x {image.shape[0]} px, but was "
                f"{example.width_px} x {example.height_px} px when the data set was opened"
            )
        file.write(np.ascontiguousarray(image).data)


def _in_memory(split: Split) -> Pixels:
    needed = starts(split.examples)[-1]
    free = _free_memory()
    if free is not None and needed > 0.8 * free:
        raise UsageError(
            f"data.cache=ram: the decoded images take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB "
            "of memory are free; use data.cache=disk or data.cache=none"
        )
    if not hasattr(os, "memfd_create"):
        raise UsageError("data.cache=ram needs Linux; use data.cache=disk here")
    # A file without a name: freed with the process however it ends, and other processes of the
    # same user can map it through /proc as long as this one lives.
    descriptor = os.memfd_create("ablation-pixels", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            _write(split, file)
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


def _on_disk(split: Split, path: Path) -> Pixels:
    needed = starts(split.examples)[-1]
    try:
        while not _whole(path, needed):
            with exclusive_lock(path.with_suffix(".lock")) as locked:
                if not locked:
                    time.sleep(0.1)
                    continue
                if not _whole(path, needed):
                    _build(split, path, needed)
        return Pixels(path, split.examples)
    except OSError as error:
        raise UsageError(
            f"data.cache_dir: {path.parent} cannot be used ({error.strerror or error}); name a folder "
            "that can be written, or use data.cache=ram or data.cache=none"
        ) from error


def _build(split: Split, path: Path, needed: int) -> None:
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)  # of a writer that was killed: the lock shows that none lives
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UsageError(
            f"data.cache=disk: the decoded images take {needed / 1e9:.1f} GB and {path.parent} has "
            f"{free / 1e9:.1f} GB free; set data.cache_dir to a larger disk, or data.cache=none"
        )
    write_atomic(path, lambda file: _write(split, file))


def _whole(path: Path, length: int) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC and os.fstat(file.fileno()).st_size == length
    except FileNotFoundError:
        return False
