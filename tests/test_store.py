"""The ledger: a store that is whole whoever opens it first, and points that are there once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablation.errors import StoreError, UsageError
from ablation.records import PlannedRun
from ablation.run_folder import RunFolder
from ablation.track import Mirror, Store, experiment_of, load_study, publish_plan, studies

ROOT = Path(__file__).resolve().parent.parent


def store_in(folder: Path) -> Store:
    return Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)


def run_folder(folder: Path, arm: str = "bce", seed: int = 0, key: str = "k" * 64) -> RunFolder:
    run = RunFolder.of(folder / "runs", "s", arm, seed, key)
    run.write_json(
        "run.json",
        {
            "study": "s",
            "description": "",
            "arm": arm,
            "seed": seed,
            "key": key,
            "fingerprint": "f" * 64,
            "command": "ablation train",
            "code": {"version": "0.1.0"},
            "data": {"name": "d"},
            "data_profile": {},
            "params": {"loss.name": arm, "loss.gamma": "2.0", "loss.alpha": "None"},
        },
    )
    run.file("config.yaml").write_text("seed: 0\n")
    run.set_state("RUNNING")
    return run


def test_a_point_is_logged_once_however_often_it_is_pushed(tmp_path: Path) -> None:
    store, folder = store_in(tmp_path), run_folder(tmp_path)
    store.prepare()
    mirror = Mirror(store, folder, strict=True)
    mirror.start()
    for epoch in (1, 2):
        folder.append_metrics(epoch, {"val/AP": epoch / 10, "train/loss": 1.0})
        folder.file(f"checkpoint-{epoch:06d}-0123456789abcdef.pt").touch()
        mirror.push()
    folder.append_metrics(3, {"val/AP": 0.7})  # no checkpoint yet: it may be trained again, and is held back
    for _ in range(3):
        Mirror(store, folder, strict=True).push()
    folder.truncate_metrics(2)
    folder.set_state("FINISHED")
    Mirror(store, folder, strict=True).finish([])
    (record,) = load_study(store, "s").runs
    assert record.state == "FINISHED" and record.params["loss.alpha"] == "None"
    points = record.history.query("metric == 'val/AP'")
    assert points["epoch"].tolist() == [1, 2] and points["value"].tolist() == [0.1, 0.2]


def test_a_store_out_of_reach_is_a_warning_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    folder = run_folder(tmp_path)
    gone = Store("http://127.0.0.1:9", None)
    mirror = Mirror(gone, folder)
    mirror.start()
    monkeypatch.setattr("ablation.mirror.PATIENCE_S", 2.0)
    mirror.finish([])
    assert caplog.text.count("not reached") <= 1 and "Connection refused" in caplog.text
    assert "`ablation sync` copies the rest" in caplog.text
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9"):
        Mirror(gone, folder, strict=True).start()


def test_an_edited_configuration_supersedes_the_old_run(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.prepare()
    for key in ("a" * 64, "b" * 64):
        folder = run_folder(tmp_path, key=key)
        folder.set_state("FINISHED")
        Mirror(store, folder, strict=True).finish([])
    publish_plan(
        store, "s", [PlannedRun("bce", 0, "b" * 64, "c"), PlannedRun("bce", 1, "d" * 64, "c")], "why"
    )
    study = load_study(store, "s")
    assert {run.key[0]: run.state for run in study.runs} == {"a": "SUPERSEDED", "b": "FINISHED"}
    assert study.description == "why" and len(study.planned) == 2


def test_eight_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ablation.track import Store, experiment_of\n"
        f"s = Store.of('sqlite:///{tmp_path}/mlflow.db', None); s.prepare(); experiment_of(s, 'shared')"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert studies(store_in(tmp_path)) == ["shared"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_names_are_what_they_say(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.prepare()
    experiment_of(store, "../../etc")
    experiment = store.client().get_experiment_by_name("../../etc")
    assert experiment is not None
    assert ".." not in experiment.artifact_location
    with pytest.raises(UsageError, match=r"study=nothing: no such study.*there are: \.\./\.\./etc"):
        load_study(store, "nothing")
    for uri in ("mlruns", "file:///tmp/x"):
        with pytest.raises(UsageError, match=r"tracking\.uri"):
            Store.of(uri, None)
