"""No room left, for a checkpoint, for MLflow's database, for an artifact."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.fault_trials import (
    RUN,
    Fault,
    Forks,
    Reference,
    Row,
    holds_in_mlflow,
    one_error,
    random,
    the_run,
    with_store,
)

from ablation.tracking.run_folder import RunFolder


class SmallDisk:
    """A file system of its own, in memory, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def grow(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)

    def used(self) -> int:
        """Bytes in use."""
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def leave(self, room: int) -> None:
        """Shrink it until `room` bytes (whole pages) are left."""
        size = (self.used() + room + 4095) // 4096 * 4096
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount an empty one; skips the test where that is not allowed."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


SIZES = pytest.mark.parametrize(
    "trials", [pytest.param(1, id="short"), pytest.param(10, id="full", marks=pytest.mark.fault)]
)


@SIZES
def test_disk_full_at_a_checkpoint(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """The run stops with one line that says so; the checkpoints before still load; with room it goes on."""
    row, generator = Row("disk full at a checkpoint", record_property), random("disk full at a checkpoint")
    size = max(path.stat().st_size for path in reference.run.glob("checkpoint-*"))
    # From no room for the first checkpoint to not quite enough for a third beside the two that are kept.
    for number, room in enumerate(generator.uniform(0.1, 2.9, trials) * size):
        with row.trial(f"{room:.0f} bytes"):
            folder = with_store(tmp_path / str(number), empty_store)
            with small_disk(folder / "runs") as disk:
                disk.leave(int(room))
                code, text = forks.run(folder, ["train", *RUN])
                message = one_error(text)
                assert code == 1 and "No space left on device" in message and "checkpoint-" in message, text
                assert "make room" in message
                kept = reference.holds_after_a_fault(folder)
                assert kept >= min(2, room // size) - 1
                assert list(the_run(folder).rglob("*.tmp")) == []
                assert RunFolder(the_run(folder)).state in ("STOPPED", "RUNNING")
                times = reference.times(folder)
                disk.grow()
                code, text = forks.run(folder, ["train", *RUN])
                assert code == 0, text
                holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, kept, times))
    assert row.end(trials) == []


@SIZES
def test_disk_full_at_the_store(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """Training is not touched; what the database misses is there after a sync, once."""
    row, generator = Row("disk full at the store", record_property), random("disk full at the store")
    for number, pages in enumerate(generator.integers(0, 24, trials)):
        with row.trial(f"{pages} pages"):
            folder = tmp_path / str(number)
            with small_disk(folder / "db") as disk:
                (folder / "db" / "mlflow.db").write_bytes(empty_store.read_bytes())
                disk.leave(int(pages) * 4096)
                tracked = [
                    "tracking.uri=sqlite:///db/mlflow.db", f"tracking.artifacts={folder}/artifacts",
                ]  # fmt: skip
                code, text = forks.run(folder, ["train", *RUN, *tracked])
                assert code == 0, text
                assert "disk is full" in text and "db/mlflow.db" in text, text
                run = reference.holds_at_the_end(folder, 0, [])
                disk.grow()
                sync = ["sync", "uri=sqlite:///db/mlflow.db", f"artifacts={folder}/artifacts"]
                for _ in range(2):
                    code, text = forks.run(folder, sync)
                    assert code == 0, text
                holds_in_mlflow(folder / "db" / "mlflow.db", run)
    assert row.end(trials) == []


@pytest.mark.fault
@pytest.mark.parametrize("trials", [10])
def test_disk_full_at_an_artifact(
    forks: Forks,
    reference: Reference,
    empty_store: Path,
    tmp_path: Path,
    trials: int,
    record_property: object,
) -> None:
    """Training is not touched; the artifacts are whole after a sync."""
    row, generator = Row("disk full at an artifact", record_property), random("disk full at an artifact")
    artifacts = RunFolder(reference.run).artifacts()
    total = sum(path.stat().st_size for path in artifacts)
    for number, room in enumerate(generator.uniform(0, 0.95, trials) * total):
        with row.trial(f"{room:.0f} of {total} bytes"):
            folder = with_store(tmp_path / str(number), empty_store)
            with small_disk(folder / "artifacts") as disk:
                disk.leave(int(room))
                code, text = forks.run(folder, ["train", *RUN, f"tracking.artifacts={folder}/artifacts"])
                assert code == 0, text
                assert "No space left on device" in text, text
                run = reference.holds_at_the_end(folder, 0, [])
                disk.grow()
                code, text = forks.run(folder, ["sync", f"artifacts={folder}/artifacts"])
                assert code == 0, text
                holds_in_mlflow(folder / "mlflow.db", run)
                _same_artifacts(folder / "artifacts", run)
    assert row.end(trials) == []


def _same_artifacts(root: Path, run: Path) -> None:
    for path in RunFolder(run).artifacts():
        found = [copy for copy in root.rglob(path.name) if copy.is_file()]
        assert found, f"{path.name} is not there"
        assert [copy.read_bytes() == path.read_bytes() for copy in found] == [True], path.name


def test_no_space_left_for_any_write_of_a_checkpoint(
    forks: Forks, reference: Reference, empty_store: Path, tmp_path: Path
) -> None:
    """The same where no disk can be mounted: a write, an fsync or a rename fails as on a full disk."""
    saves = [n for n, label in enumerate(reference.places, 1) if label.startswith("checkpoint-000002")]
    writes = [n for n in saves if not reference.places[n - 1].endswith("deletion")]
    place = int(np.median(writes))
    folder = with_store(tmp_path / "run", empty_store)
    code, text = forks.run(folder, ["train", *RUN], Fault(at=place, signal=None))
    message = one_error(text)
    assert code == 1 and "No space left on device" in message and "checkpoint-000002" in message, text
    kept = reference.holds_after_a_fault(folder)
    run = RunFolder(the_run(folder))
    assert run.state == "STOPPED" and "make room" in run.reason
    times = reference.times(folder)
    code, text = forks.run(folder, ["train", *RUN])
    assert code == 0, text
    holds_in_mlflow(folder / "mlflow.db", reference.holds_at_the_end(folder, kept, times))
