"""Damaged files of a run's folder and of the store: one line that names the file and says what to do."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from helpers.shared import put_store
from helpers.store import run_folder, store_in

from ablation.errors import StoreError, UsageError
from ablation.records import Plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan
from ablation.tracking.study_record import load_study

DEEP = b"[" * 100_000
PLAN = {"arm": "bce", "seed": 0, "key": "k", "command": "c"}
DECLARED = {"metric": "val/AP", "margin": 0.01, "level": 0.95}


def finished(folder: Path) -> RunFolder:
    run = run_folder(folder)
    run.append_metrics(1, {"val/AP": 0.5})
    run.append_metrics(2, {"val/AP": float("nan")})
    run.set_state("FINISHED")
    return run


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"RUNNING", b"FINISHED\0", DEEP], ids=repr)
def test_done(tmp_path: Path, content: bytes) -> None:
    run = finished(tmp_path)
    run.file("DONE").write_bytes(content)
    with pytest.raises(StoreError, match=r"DONE: holds .*must hold FINISHED or DIVERGED; delete") as error:
        _ = run.state
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"\xff\xfe",
            DEEP,
            b"1",
            b"[]",
            b"{}",
            b'{"epoch": 1}',
            b'{"epoch": 1, "time_ms": 1, "metrics": []}',
        ),
        *(b'{"epoch": "1", "time_ms": 1, "metrics": {"a": 1}}', b'{"epoch": 1, "time_ms": 1, "metrics": {}}'),
        b'{"epoch": 1, "time_ms": 1, "metrics": {"val/AP": "high"}}',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_metrics(tmp_path: Path, line: bytes) -> None:
    run = finished(tmp_path)
    path = run.file("metrics.jsonl")
    whole = path.read_bytes()
    path.write_bytes(line + b"\n" + whole)
    with pytest.raises(StoreError, match=r"metrics\.jsonl:1: .*delete the run's folder"):
        run.metrics()
    path.write_bytes(whole + line)  # at the end it is what a crash cut off
    assert [row["epoch"] for row in run.metrics()] == [1, 2]


@pytest.mark.parametrize("content", [b"\xff", DEEP, b"[1]", b"3", b""], ids=lambda text: repr(text[:9]))
def test_small_json_files(tmp_path: Path, content: bytes) -> None:
    run = run_folder(tmp_path)
    run.file("state.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"state\.json: .*delete the run's folder"):
        _ = run.state


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff", DEEP, b"3", b"[]", b"{}", b'{"runs": 3}', b'{"runs": [3]}', b'{"runs": [{"arm": "a"}]}'),
        *(
            json.dumps({"runs": [PLAN | part]}).encode()
            for part in ({"seed": "x"}, {"key": None}, {"params": 3})
        ),
        *(
            json.dumps({"runs": [PLAN], "declared": [DECLARED | part]}).encode()
            for part in (
                {"margin": "x"},
                {"margin": -1},
                {"level": 2},
                {"family": 3},
                {"family": [1]},
                {"x": 1},
            )
        ),
    ],
    ids=lambda content: repr(content[-40:]),
)
def test_plan(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"plan\.json: not a plan .*launch the study again"):
        read_plan(path)


def test_a_whole_plan_is_read(tmp_path: Path) -> None:
    content = {"runs": [PLAN], "declared": [DECLARED | {"family": ["focal"], "margin": 1}]}
    assert Plan.from_json(content).declared[0].family == ("focal",)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store with one finished run."""
    folder = tmp_path_factory.mktemp("store")
    store = put_store(folder)
    Mirror(store, finished(folder), strict=True).finish([])
    return (folder / "mlflow.db").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE latest_metrics SET value = 'high', is_nan = 0",
        "UPDATE metrics SET value = 'high'",
        "UPDATE tags SET value = 'x' WHERE key = 'seed'",
        "UPDATE tags SET value = 'x' WHERE key = 'state'",
        "DELETE FROM tags WHERE key = 'arm'",
        "DROP TABLE latest_metrics",
        "ALTER TABLE runs RENAME COLUMN artifact_uri TO other",
    ],
)
def test_a_store_with_wrong_content(tmp_path: Path, store: bytes, change: str) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(store)
    with sqlite3.connect(path) as database:
        database.execute(change)
    database.close()
    with pytest.raises(StoreError, match=r"mlflow\.db: .*`ablation sync`") as error:
        load_study(store_in(tmp_path), "s")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_store_with_a_damaged_page_is_one_line_or_whole(tmp_path: Path, store: bytes, share: float) -> None:
    path = tmp_path / "mlflow.db"
    start = int(len(store) * share)
    path.write_bytes(store[:start] + b"\xa5" * 4096 + store[start + 4096 :])
    try:
        (run,) = load_study(store_in(tmp_path), "s").runs
        assert run.metrics["val/AP"] != run.metrics["val/AP"]
    except (StoreError, UsageError) as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_what_a_killed_creation_left_is_removed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (tmp_path / ".mlflow.db.new-abc12345").mkdir()
    (tmp_path / ".mlflow.db.new-abc12345" / "mlflow.db").write_bytes(b"half")
    (tmp_path / ".mlflow.db.original").mkdir()  # not ours
    store.prepare()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.original"}


def test_a_run_has_no_negative_duration_when_the_clock_is_set_back(tmp_path: Path) -> None:
    store, run = put_store(tmp_path), run_folder(tmp_path)
    state = run.read_json("state.json")
    run.write_json("state.json", state | {"started_ms": state["started_ms"] + 3_600_000})
    run.set_state("FINISHED")
    Mirror(store, run, strict=True).finish([])
    (record,) = load_study(store, "s").runs
    info = store.client().get_run(record.run_id).info
    assert info.end_time >= info.start_time
    assert isinstance(store, Store)
