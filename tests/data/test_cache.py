"""The cache: the same pixels, decoded once, never half a file."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import IO, Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ablation.data import image_check
from ablation.data.cache import SPLITS_IN_RAM, CachedSplit, cached
from ablation.data.dataset import Example, Image, Split
from ablation.data.image_check import check_images
from ablation.data.shapes import Shapes, ShapesSplit
from ablation.errors import DataError, UsageError
from ablation.files import write_atomic
from ablation.rng import generator


class Counted(Split):
    """Images of different sizes that count how often they are read."""

    def __init__(self, count: int = 7) -> None:
        self.faults, self.reads, self.lock = [], 0, Lock()
        none = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_)
        self.examples = [Example(f"{k}", 5 + k, 9 - k, *none) for k in range(count)]

    def read(self, index: int) -> Image:
        with self.lock:
            self.reads += 1
        example = self.examples[index]
        return generator(1, "counted", 0, index).integers(
            0, 256, (example.height_px, example.width_px, 3), dtype=np.uint8
        )

    def fingerprint(self) -> str:
        return "counted"


class Other(Counted):
    """Images of the same sizes that show something else."""

    def read(self, index: int) -> Image:
        return 255 - super().read(index)


class Picklable(Counted):
    """For a worker: without the lock."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=Lock())


@pytest.fixture
def key() -> str:
    """A key that no other test has used: images in RAM outlive a test."""
    return uuid4().hex


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_each_image_is_decoded_once_for_all_runs(mode: str, tmp_path: Path, key: str) -> None:
    source = Counted()
    truth = [source.read(index) for index in range(7)]
    source.reads = 0
    for _ in range(3):  # three runs
        split = cached(source, mode=mode, folder=tmp_path, key=key)
        assert len(split) == 7 and split.fingerprint() == "counted"
        for index in (3, 0, 6, 1, 2, 4, 5, 3):
            assert_array_equal(split.read(index), truth[index])
    assert source.reads == 7


def test_opening_decodes_nothing(tmp_path: Path) -> None:
    source = Counted()
    cached(source, mode="disk", folder=tmp_path, key="k")
    assert source.reads == 0 and list(tmp_path.iterdir()) == []


def test_mode_none_is_the_split_itself(tmp_path: Path) -> None:
    source = Counted()
    assert cached(source, mode="none", folder=tmp_path, key="k") is source


def test_several_writers_build_it_once(tmp_path: Path) -> None:
    source = Counted()
    splits = [cached(source, mode="disk", folder=tmp_path, key="k") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        sums = list(pool.map(lambda split: int(split.read(2).sum()), splits))
    assert source.reads == 7 and len(set(sums)) == 1
    assert len(list(tmp_path.glob("*.bin"))) == 1


def test_another_key_or_size_is_another_file(tmp_path: Path) -> None:
    source = Counted()
    cached(source, mode="disk", folder=tmp_path, key="k").read(0)
    cached(source, mode="disk", folder=tmp_path, key="l").read(0)
    source.examples[0] = replace(source.examples[0], width_px=6)
    cached(source, mode="disk", folder=tmp_path, key="k").read(0)
    assert len(list(tmp_path.glob("*.bin"))) == 3


@pytest.mark.parametrize(
    "damage", ["short", "empty", "zeros", "zeros after the header", "a bit", "another key"]
)
def test_a_damaged_file_is_built_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Counted()
    truth = source.read(4)
    cached(source, mode="disk", folder=tmp_path, key="k").read(0)
    (path,) = tmp_path.glob("*.bin")
    content = path.read_bytes()
    if damage == "another key":
        cached(Other(), mode="disk", folder=tmp_path / "other", key="l").read(0)
        (stranger,) = (tmp_path / "other").glob("*.bin")
        assert stranger.stat().st_size == len(content)
        stranger.replace(path)
    else:
        flipped = content[:200] + bytes([content[200] ^ 4]) + content[201:]
        path.write_bytes(
            {
                "short": content[:-1],
                "empty": b"",
                "zeros": bytes(len(content)),
                "zeros after the header": content[:64] + bytes(len(content) - 64),
                "a bit": flipped,
            }[damage]
        )
    assert_array_equal(cached(source, mode="disk", folder=tmp_path, key="k").read(4), truth)
    assert path.read_bytes() == content
    assert path.name in caplog.text and "damaged" in caplog.text


def test_a_whole_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        cached(Counted(), mode="disk", folder=tmp_path, key="k").read(0)
        time.sleep(0.2)  # a file that has just been written is not trusted to stay
    hashed, truth = [], Counted().read(0)
    monkeypatch.setattr("xxhash.xxh3_128", lambda *content: hashed.append(content))
    assert_array_equal(cached(Counted(), mode="disk", folder=tmp_path, key="k").read(0), truth)
    assert not hashed


def test_a_disk_that_returns_other_bytes_than_were_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(path: Path, write: Callable[[IO[bytes]], object]) -> None:
        write_atomic(path, write)
        path.write_bytes(bytes(path.stat().st_size))

    monkeypatch.setattr("ablation.data.cache.write_atomic", spoilt)
    with pytest.raises(DataError, match=r"reads back differently.*data\.cache_dir"):
        cached(Counted(), mode="disk", folder=tmp_path, key="k").read(0)


def test_a_worker_checks_a_file_that_was_damaged_before_it_started(tmp_path: Path) -> None:
    split = cached(Picklable(), mode="disk", folder=tmp_path, key="k")
    truth = split.read(3).copy()
    pickled = pickle.dumps(split)
    (path,) = tmp_path.glob("*.bin")
    path.write_bytes(bytes(path.stat().st_size))
    assert_array_equal(pickle.loads(pickled).read(3), truth)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    source = Counted()
    split = cached(source, mode="disk", folder=tmp_path, key="k")
    assert isinstance(split, CachedSplit)
    left = tmp_path / f".pixels-{split.key}.bin.abc123.tmp"
    left.write_bytes(b"half")
    split.read(0)
    assert not left.exists()


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_worker_gets_the_place_of_the_pixels_not_the_pixels(mode: str, tmp_path: Path, key: str) -> None:
    settings = Shapes(train_images=30, cache="none")
    split = cached(ShapesSplit(settings, "train", 30), mode=mode, folder=tmp_path, key=key)
    pickled = pickle.dumps(split)
    assert len(pickled) < 30 * 96 * 96 * 3 / 10
    copy = pickle.loads(pickled)
    copy.source.read = None  # a decode would fail
    assert all(np.array_equal(copy.read(index), split.read(index)) for index in range(30))


def test_cached_images_cannot_be_written_to(tmp_path: Path) -> None:
    image = cached(Counted(), mode="disk", folder=tmp_path, key="k").read(0)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_few_splits_are_kept_in_ram(key: str) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for number in range(12):
        cached(Counted(), mode="ram", folder=Path("unused"), key=f"{key} {number}").read(0)
    assert open_files() <= before + 2 * SPLITS_IN_RAM
    newest = Counted()
    cached(newest, mode="ram", folder=Path("unused"), key=f"{key} 11").read(0)
    assert newest.reads == 0
    oldest = Counted()
    cached(oldest, mode="ram", folder=Path("unused"), key=f"{key} 0").read(0)
    assert oldest.reads == len(oldest)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^data\.cache_dir: .*file.* cannot be used"):
        cached(Counted(), mode="disk", folder=tmp_path / "file" / "sub", key="k").read(0)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_too_little_room_is_reported_before_anything_is_read(mode: str, tmp_path: Path, key: str) -> None:
    source = Counted()
    source.examples[6] = replace(source.examples[6], width_px=10**6, height_px=10**8)  # 300 TB of pixels
    with pytest.raises(UsageError, match=rf"data\.cache={mode}"):
        cached(source, mode=mode, folder=tmp_path, key=key).read(0)
    assert source.reads == 0 and not list(tmp_path.rglob("*.bin"))


def test_an_image_of_another_size_than_announced_is_an_error(tmp_path: Path) -> None:
    source = Counted()
    right = source.examples[2]
    image = source.read(2)
    source.examples[2] = replace(right, width_px=right.width_px + 1)
    source.read = lambda index: image  # type: ignore[method-assign]
    with pytest.raises(DataError, match="when the data set was opened"):
        cached(source, mode="disk", folder=tmp_path, key="k").read(0)
    assert list(tmp_path.glob("*.bin")) == list(tmp_path.glob(".*.tmp")) == []


def test_an_unchanged_file_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.voc_folder import encode, picture

    decoded: list[str] = []
    check = image_check.check_image

    def watched(path: Path, max_pixels: int) -> image_check.CheckedImage:
        decoded.append(path.name)
        return check(path, max_pixels)

    monkeypatch.setattr(image_check, "check_image", watched)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(encode(picture(), ".png"))
    memory = tmp_path / "memory"
    first = check_images(paths, memory, settled_s=-60)
    assert check_images(paths, memory, settled_s=-60) == first and sorted(decoded) == ["a.png", "b.png"]
    before = paths[1].stat()
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time: a copy's trick
    again = check_images(paths, memory, settled_s=-60)
    assert decoded[2:] == ["b.png"]
    assert again[0] == first[0] and "checksum" in str(again[1].damage)
    assert check_images(paths, None)[0] == first[0] and len(decoded) == 5


def test_a_file_changed_just_now_is_not_trusted_to_stay(tmp_path: Path) -> None:
    from helpers.voc_folder import encode, picture

    path = tmp_path / "a.png"
    path.write_bytes(encode(picture(), ".png"))
    check_images([path], tmp_path / "memory")
    assert all('"a.png"' not in file.read_text() for file in (tmp_path / "memory").glob("*.json"))


def _checked(tmp_path: Path) -> tuple[list[Path], Path, list[image_check.CheckedImage]]:
    """Two images, the file that remembers them, and what is known of them."""
    from helpers.voc_folder import encode, picture

    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(encode(picture(), ".png"))
    checks = check_images(paths, tmp_path / "memory", settled_s=-60)
    (memory_file,) = (tmp_path / "memory").glob("checked-*.json")
    return paths, memory_file, checks


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["images"].update({"a.png": True}),
        lambda content: content["images"].update({"a.png": None, "b.png": [1, 2]}),
        lambda content: content["images"]["a.png"].__setitem__(3, "0" * 64),
        lambda content: content["images"]["b.png"].__setitem__(4, 41),
        lambda content: content["images"]["b.png"].__setitem__(6, "is damaged"),
        lambda content: content.update(images=[]),
        lambda content: content.update(version=True),
        lambda content: content.pop("xxh3"),
    ],
)
def test_an_altered_memory_of_checked_files_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    paths, memory_file, checks = _checked(tmp_path)
    whole = memory_file.read_bytes()
    content = json.loads(whole)
    change(content)
    memory_file.write_text(json.dumps(content))
    assert check_images(paths, tmp_path / "memory", settled_s=-60) == checks
    assert memory_file.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"images":{"a.jpg":true}}']
)
def test_a_memory_of_checked_files_that_is_none_is_made_anew(tmp_path: Path, content: bytes) -> None:
    paths, memory_file, checks = _checked(tmp_path)
    memory_file.write_bytes(content)
    assert check_images(paths, tmp_path / "memory") == checks


def test_the_memory_of_another_folder_is_not_believed(tmp_path: Path) -> None:
    paths, memory_file, checks = _checked(tmp_path)
    content = json.loads(memory_file.read_text())
    memory_file.rename(tmp_path / "memory" / "checked-0123456789abcdef.json")
    (tmp_path / "memory" / "checked-0123456789abcdef.json").rename(memory_file)
    assert check_images(paths, tmp_path / "memory") == checks
    other = tmp_path / "other"
    other.mkdir()
    check_images([path.rename(other / path.name) for path in paths], tmp_path / "memory", settled_s=-60)
    (theirs,) = {*(tmp_path / "memory").glob("checked-*.json")} - {memory_file}
    assert json.loads(theirs.read_text())["xxh3"] != content["xxh3"]


def test_the_limit_of_pixels_holds_for_remembered_images_too(tmp_path: Path) -> None:
    paths, _, checks = _checked(tmp_path)
    small = check_images(paths, tmp_path / "memory", settled_s=-60, max_pixels=1199)
    assert all(check.oversized for check in small)
    assert check_images(paths, tmp_path / "memory", settled_s=-60, max_pixels=1200) == checks


def test_an_image_that_changes_after_the_data_set_was_opened_is_an_error(tmp_path: Path) -> None:
    from helpers.voc_folder import encode, picture, write_voc

    from ablation.data.voc import Voc

    data = Voc(root=str(write_voc(tmp_path / "voc")), cache_dir=str(tmp_path / "cache")).open()
    (tmp_path / "voc/JPEGImages/b.jpg").write_bytes(encode(picture(seed=9)))
    with pytest.raises(DataError, match=r"b\.jpg: has changed since"):
        data.train.read(1)
