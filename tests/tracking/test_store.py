"""A store that is whole whoever opens it first, and points that are there once."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from helpers.process_server import start
from helpers.shared import put_store
from helpers.store import run_folder, store_in

from ablation.errors import StoreError, UsageError
from ablation.records import Plan, PlannedRun
from ablation.tracking import histories
from ablation.tracking.experiment import publish_plan, save_chart_view, set_experiment
from ablation.tracking.mirror import Mirror
from ablation.tracking.store import Store
from ablation.tracking.study_record import fetch_artifact, find_folders, load_study, study_names


def test_a_point_is_logged_once_however_often_it_is_pushed(tmp_path: Path) -> None:
    store, folder = put_store(tmp_path), run_folder(tmp_path)
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
    monkeypatch.setattr("ablation.tracking.mirror.PATIENCE_S", 2.0)
    mirror.finish([])
    assert caplog.text.count("not reached") <= 1 and "127.0.0.1:9" in caplog.text
    assert "`ablation sync` copies the rest" in caplog.text
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9"):
        Mirror(gone, folder, strict=True).start()


def test_an_edited_configuration_supersedes_the_old_run(tmp_path: Path) -> None:
    store = put_store(tmp_path)
    for key in ("a" * 64, "b" * 64):
        folder = run_folder(tmp_path, key=key)
        folder.set_state("FINISHED")
        Mirror(store, folder, strict=True).finish([])
    planned = [PlannedRun("bce", 0, "b" * 64, "c"), PlannedRun("bce", 1, "d" * 64, "c")]
    publish_plan(store, "s", Plan(planned, description="why"))
    study = load_study(store, "s")
    assert {run.key[0]: run.state for run in study.runs} == {"a": "SUPERSEDED", "b": "FINISHED"}
    assert study.description == "why" and len(study.planned) == 2


def test_eight_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    call = "helpers.store:open_store_with_experiment"  # everything is imported, so that they really meet
    out = str(tmp_path.with_suffix(".log"))
    children = [start(call, str(tmp_path), "shared", folder=tmp_path, out=out, err=out) for _ in range(8)]
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert study_names(store_in(tmp_path)) == ["shared"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_names_are_what_they_say(tmp_path: Path) -> None:
    store = put_store(tmp_path)
    store.experiment("../../etc")
    experiment = store.client().get_experiment_by_name("../../etc")
    assert experiment is not None
    assert ".." not in experiment.artifact_location
    with pytest.raises(UsageError, match=r"study=nothing: no such study.*there are: \.\./\.\./etc"):
        load_study(store, "nothing")
    question_mark = f"sqlite:///{tmp_path}/why?/mlflow.db"  # SQLAlchemy would open tmp_path/why
    escape = f"sqlite:///{tmp_path}/x%20z/mlflow.db"  # and here x z
    for uri in ("mlruns", "file:///tmp/x", question_mark, escape):
        with pytest.raises(UsageError, match=r"tracking\.uri"):
            Store.of(uri, None)


def test_histories_in_bulk_are_those_that_mlflow_gives_one_by_one(tmp_path: Path) -> None:
    store = put_store(tmp_path)
    for seed in range(3):
        folder = run_folder(tmp_path, seed=seed, key=f"{seed}" * 64)
        for epoch in range(1, 12):
            value = [float("nan"), float("inf"), -1.0, 0.25][epoch % 4]
            folder.append_metrics(epoch, {"val/AP": value, "train/loss": epoch * (seed + 1), "other/x": 1.0})
        folder.set_state("FINISHED")
        Mirror(store, folder, strict=True).finish([])
    client = store.client()
    experiment = client.get_experiment_by_name("s").experiment_id
    runs = list(client.search_runs([experiment], "tags.kind = 'run'"))
    for run in runs:  # an epoch that was logged again
        store.log_points(
            run.info.run_id, {"epoch": 11, "time_ms": 2_000_000_000_000, "metrics": {"val/AP": 0.5}}
        )
    slow = histories.points_one_by_one(client, runs)
    fast = histories.sqlite_points(tmp_path / "mlflow.db", experiment)
    assert repr(fast) != "{}" and set(fast) == set(slow)
    for run in slow:
        assert repr(sorted(fast[run].items())) == repr(sorted(slow[run].items()))  # repr: NaN is NaN
    (first, *_) = load_study(store, "s").runs
    assert {str(kind) for kind in first.history.dtypes[["epoch", "value"]]} == {"int64", "float64"}
    assert set(first.history["metric"]) == {"val/AP", "train/loss"}


def test_a_store_of_another_form_is_read_through_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, folder = put_store(tmp_path), run_folder(tmp_path)
    folder.append_metrics(1, {"val/AP": 0.5})
    folder.set_state("FINISHED")
    Mirror(store, folder, strict=True).finish([])
    caplog.set_level("INFO", "ablation.tracking.study_record")
    monkeypatch.setattr(histories, "METRIC_COLUMNS", {"key", "column_of_the_future"})
    (run,) = load_study(store, "s").runs
    assert run.history["value"].tolist() == [0.5]
    assert "reading run by run, which is slow: table metrics has no column_of_the_future" in caplog.text


def test_an_answer_that_was_cut_off_is_asked_for_again_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "SERVER_POINTS", 25)
    sizes = []

    def request(query: list[tuple[str, str]]) -> dict[str, object]:
        runs = [value for name, value in query if name == "run_id"]
        sizes.append(len(runs))
        rows = [{"run_id": run, "step": step, "value": step / 2} for run in runs for step in range(10)]
        return {"metrics": rows[:25]}

    points = histories.server_points(request, ["a", "b", "c", "d", "e"], ["val/AP"])
    assert points == {run: {"val/AP": [(step, step / 2) for step in range(10)]} for run in "abcde"}
    assert sizes == [5, 2, 3, 1, 2]
    with pytest.raises(LookupError, match="run a has 25 points"):
        histories.server_points(
            lambda query: {"metrics": [{"run_id": "a", "step": 1, "value": 1}] * 25}, ["a"]
        )


def test_a_creation_that_broke_off_is_completed_and_its_double_removed(tmp_path: Path) -> None:
    store, folder = put_store(tmp_path), run_folder(tmp_path)
    client = store.client()
    experiment = store.experiment("s")
    tags = {"kind": "run", "study": "s", "arm": "bce", "seed": "0", "key": "k" * 64}
    tags |= {"folder": str(folder.path.resolve())}
    ids = sorted(client.create_run(experiment, 5, tags).info.run_id for _ in range(2))
    folder.append_metrics(1, {"val/AP": 0.5})
    folder.set_state("FINISHED")
    Mirror(store, folder, strict=True).finish([])
    (run,) = load_study(store, "s").runs
    assert run.run_id == ids[0] and run.params["loss.name"] == "bce" and run.metrics == {"val/AP": 0.5}
    assert client.get_run(ids[1]).info.lifecycle_stage == "deleted"


def test_files_of_runs_elsewhere_and_the_saved_charts(tmp_path: Path) -> None:
    store, folder = put_store(tmp_path), run_folder(tmp_path)
    folder.write_json("detections/val.json", [1, 2])
    folder.set_state("FINISHED")
    Mirror(store, folder, strict=True).finish(folder.artifacts())
    (run,) = load_study(store, "s").runs
    detections = fetch_artifact(store, run.run_id, "detections/val.json")
    assert detections is not None and json.loads(detections.read_text()) == [1, 2]
    assert fetch_artifact(store, run.run_id, "detections/none.json") is None
    assert fetch_artifact(store, run.run_id, "config.yaml") is not None
    page = save_chart_view(store, "s", "val/AP", "loss.alpha", "loss.gamma")
    experiment = set_experiment(store, "s", "What was found", {"verdict": "equivalent"})
    assert f"/experiments/{experiment}/" in page
    tags = store.client().get_experiment(experiment).tags
    assert tags["verdict"] == "equivalent" and tags["mlflow.note.content"] == "What was found"
    state = json.loads(json.loads(tags["mlflow.sharedViewState.study"])["state"])
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["PARALLEL", "CONTOUR", "LINE", "LINE"]


NAMES = ("<b>x</b>", "key=val", "plain", "ends-abcdef")


def test_names_that_mlflow_refuses_come_from_the_folder_where_the_store_has_no_tags(tmp_path: Path) -> None:
    """As in stores of version 0.1.0; else the classes have other names than in the ground truth."""
    store = put_store(tmp_path)
    run = run_folder(tmp_path)
    values = {f"val/AP_class/{name}": 0.1 + index / 10 for index, name in enumerate(NAMES)}
    run.append_metrics(1, {"val/AP": 0.5} | values)
    run.set_state("FINISHED")
    Mirror(store, run, strict=True).finish([])
    (named,) = load_study(store, "s").runs
    assert {name: named.metrics[name] for name in values} == values
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("DELETE FROM tags WHERE key LIKE 'metric.%'").rowcount == 2
    (old,) = load_study(store, "s").runs
    assert old.metrics == named.metrics
    run.file("metrics.jsonl").unlink()  # nothing knows the names any more: MLflow's, and no count is lost
    (short,) = load_study(store, "s").runs
    assert sorted(short.metrics.values()) == sorted(named.metrics.values())


@pytest.mark.parametrize("key", ["key", "seed", "folder", "arm", "study", "state"])
def test_bytes_in_a_column_of_text_are_one_line(tmp_path: Path, key: str) -> None:
    store = put_store(tmp_path)
    run = run_folder(tmp_path)
    run.set_state("FINISHED")
    Mirror(store, run, strict=True).finish([])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute(f"UPDATE tags SET value = x'00ff' WHERE key = '{key}'").rowcount
    with pytest.raises(StoreError, match=f"tag {key} is .*not a text; move the store away"):
        load_study(store, "s")
    with pytest.raises(StoreError, match=f"tag {key} is .*not a text; move the store away"):
        find_folders(store, "a")
