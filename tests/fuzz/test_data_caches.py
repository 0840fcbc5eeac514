"""Damaged caches of a data set: whatever they hold, the data set stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from helpers.fuzz import Reader, Result
from helpers.mutations import Damage
from helpers.voc_folder import write_voc

from ablation.data.image_check import CheckedImage, check_images
from ablation.data.voc import Voc

Fuzz = Callable[[Reader, int], Result]
Pixels = tuple[str, list[bytes]]


# decoded pixels


def write_cache(folder: Path) -> None:
    read_cache(Path(write_voc(folder / "voc")).parent)


def damage_cache(folder: Path, damage: Damage) -> None:
    damage.binary_file(damage.choose(sorted((folder / "cache").glob("pixels-*.bin"))))


def read_cache(folder: Path) -> Pixels:
    data = Voc(root=str(folder / "voc"), cache_dir=str(folder / "cache")).open()
    images = [split.read(index).tobytes() for split in (data.train, data.val) for index in range(len(split))]
    return data.fingerprint(), images


def wrong_cache(folder: Path, value: Pixels, undamaged: Pixels) -> str | None:
    return None if value == undamaged else "fingerprint or pixels are others"


def _zeros_behind_the_header(folder: Path) -> None:
    for path in (folder / "cache").glob("pixels-*.bin"):
        content = path.read_bytes()
        path.write_bytes(content[:64] + bytes(len(content) - 64))


def _exchanged(folder: Path) -> None:
    first, second = sorted((folder / "cache").glob("pixels-*.bin"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


PIXELS = Reader(
    "cached pixels",
    write_cache,
    damage_cache,
    read_cache,
    wrong_cache,
    special={"zeros": _zeros_behind_the_header, "exchanged": _exchanged},
)


def test_cached_pixels(fuzz: Fuzz, mutations: int) -> None:
    result = fuzz(PIXELS, mutations)
    assert result.failures == []
    assert result.counts["clean"] == 0  # a cache is made anew, never refused


# the memory of checked images


def write_images(folder: Path) -> None:
    write_voc(folder / "voc")


def _remembered(folder: Path) -> Path:
    """The memory of this folder; it depends on the folder's path, so it is made where it is damaged."""
    _check(folder)
    (path,) = (folder / "memory").glob("checked-*.json")
    return path


def _check(folder: Path) -> list[CheckedImage]:
    return check_images(sorted((folder / "voc/JPEGImages").iterdir()), folder / "memory", settled_s=-60)


def damage_memory(folder: Path, damage: Damage) -> None:
    damage.json_file(_remembered(folder))


def _put(content: str) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        _remembered(folder).write_text(content)

    return special


def wrong_memory(folder: Path, value: Any, undamaged: Any) -> str | None:
    return None if value == undamaged else "another outcome of the check"


MEMORY = Reader(
    "memory of checked images",
    write_images,
    damage_memory,
    _check,
    wrong_memory,
    special={"true": _put('{"version": 3, "images": {"a.jpg": true}}'), "deep": _put("[" * 200_000)},
)


def test_memory_of_checked_images(fuzz: Fuzz, mutations: int) -> None:
    result = fuzz(MEMORY, mutations)
    assert result.failures == []
    assert result.counts["clean"] == 0


def test_the_comparison_sees_a_changed_pixel() -> None:
    """The oracle itself."""
    pixels = np.zeros(3, np.uint8).tobytes()
    assert wrong_cache(Path(), ("f", [pixels]), ("f", [b"\0\1\0"])) is not None
