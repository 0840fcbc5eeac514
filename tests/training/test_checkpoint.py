"""Checkpoints: what is written, when, and what an error leaves behind."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from ablation.errors import NoRoom
from ablation.training import checkpoint


def state(size: int = 1000) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model": {"weight": torch.randn(size, generator=generator)},
        "average": None,
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}},
        "calibration": 1.5,
        "classes": ["a", "b"],
    }


def test_the_name_has_the_hash_of_the_file_which_is_what_torch_writes(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 3, state())
    content = path.read_bytes()
    assert path.name == f"checkpoint-000003-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    assert content == buffer.getvalue()
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and newest[0] == 3
    assert torch.equal(newest[1]["model"]["weight"], state()["model"]["weight"])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_nothing_as_large_as_the_file_is_made_in_memory(tmp_path: Path) -> None:
    large = state(4_000_000)
    tracemalloc.start()
    path = checkpoint.save(tmp_path, 1, large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 16_000_000 and peak < 4_000_000


@pytest.mark.parametrize("room", [0, 100, 50_000])
def test_a_full_disk_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    former = checkpoint.save(tmp_path, 1, state())
    written = 0
    real = checkpoint.HashedOutput

    class Small:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> None:
            nonlocal written
            written += len(data)
            if written > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(data)

    monkeypatch.setattr(checkpoint, "HashedOutput", lambda file, digest: real(Small(file), digest))
    with pytest.raises(NoRoom, match="make room"):
        checkpoint.save(tmp_path, 2, state(100_000))
    written = 0
    with pytest.raises(NoRoom, match="make room"):
        checkpoint.save_weights(tmp_path / "weights.pt", torch.nn.Linear(300, 300), ["a"])
    assert [file.name for file in tmp_path.iterdir()] == [former.name]


def test_checkpoints_take_at_most_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 7 s and checkpoints of 3 s in an hour: 2 % allow one in 150 s."""
    clock = 0.0
    monkeypatch.setattr("ablation.training.checkpoint.time.monotonic", lambda: clock)
    schedule = checkpoint.Schedule(0.02)
    written = []
    while clock < 3600:
        clock += 7
        if schedule.due:
            clock += 3
            schedule.written(3)
            written.append(clock)
    assert written[0] == 10  # nothing is known of the first: it is written
    gaps = {b - a for a, b in itertools.pairwise(written)}
    assert gaps == {157}  # 22 epochs, the first whole number of them that takes 150 s, and the writing
    assert 3 * len(written[1:]) / (clock - 10) <= 0.02


def test_a_share_of_one_is_a_checkpoint_after_every_epoch() -> None:
    schedule = checkpoint.Schedule(1)
    schedule.written(1e9)
    assert schedule.due
