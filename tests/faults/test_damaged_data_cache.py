"""The caches of a data set damaged at random: decoded pixels, and the memory of checked images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.fault_trials import Row, random
from helpers.voc_folder import encode, picture, write_voc

from ablation.data.image_check import check_images
from ablation.data.voc import Voc

TRIALS = [pytest.param(12, id="short"), pytest.param(150, id="full", marks=pytest.mark.fault)]


def damaged(content: bytes, generator: np.random.Generator) -> tuple[bytes, str]:
    """The content with a bit flipped, a part zeroed, overwritten, exchanged with another or cut off."""
    kind = str(generator.choice(["bit", "zeros", "noise", "exchange", "cut", "everything but the header"]))
    changed = bytearray(content)
    start = int(generator.integers(len(content)))
    length = int(min(len(content) - start, generator.choice([1, 8, 512, 4096, len(content)])))
    if kind == "bit":
        changed[start] ^= 1 << int(generator.integers(8))
    elif kind == "zeros":
        changed[start : start + length] = bytes(length)
    elif kind == "noise":
        changed[start : start + length] = generator.bytes(length)
    elif kind == "exchange":
        middle = len(content) // 2
        changed = bytearray(content[middle:] + content[:middle])
    elif kind == "cut":
        changed = changed[:start]
    else:
        changed[64:] = bytes(len(content) - 64)
    return bytes(changed), f"{kind} at {start}, {length} bytes"


def write_over(path: Path, content: bytes) -> None:
    """In place, with the former time: what a failing disk or a careless copy does."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("trials", TRIALS)
def test_cached_pixels_damaged(tmp_path: Path, trials: int, record_property: Callable[..., None]) -> None:
    """No damaged pixel is ever read: the images are decoded anew."""
    row, generator = Row("cached pixels damaged", record_property), random("damaged pixels")
    source = Voc(root=str(write_voc(tmp_path / "voc")), cache_dir=str(tmp_path / "cache"))
    data = source.open()
    expected = [data.train.read(index).copy() for index in range(len(data.train))]
    (path,) = (tmp_path / "cache").glob("pixels-*.bin")
    whole = path.read_bytes()
    for _ in range(trials):
        content, what = damaged(whole, generator)
        write_over(path, content)
        with row.trial(what):
            opened = source.open()
            assert opened.fingerprint() == data.fingerprint()
            for index, image in enumerate(expected):
                assert np.array_equal(opened.train.read(index), image), "damaged pixels were taken"
            assert path.read_bytes() == whole, "the file was not written anew"
    assert row.end(trials) == []


@pytest.mark.parametrize("trials", TRIALS)
def test_memory_of_checked_images_damaged(
    tmp_path: Path, trials: int, record_property: Callable[..., None]
) -> None:
    """What is known of the images stays the same: a damaged memory is made anew."""
    row, generator = Row("memory of checked images damaged", record_property), random("damaged memory")
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(picture(seed=number), ".png")[: None if number else -9])
    memory = tmp_path / "memory"
    expected = check_images(paths, memory, settled_s=-60)
    (path,) = memory.glob("checked-*.json")
    whole = path.read_bytes()
    for _ in range(trials):
        content, what = damaged(whole, generator)
        write_over(path, content)
        with row.trial(what):
            assert check_images(paths, memory, settled_s=-60) == expected
            assert path.read_bytes() == whole or content.strip() == whole.strip(), "it was not made anew"
    assert row.end(trials) == []
