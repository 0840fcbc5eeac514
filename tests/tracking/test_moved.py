"""A project that was moved, copied or mounted elsewhere is found, and nothing is written where it was."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.shared import put_store
from helpers.store import run_folder, store_in

from ablation.errors import UsageError
from ablation.records import Declaration, PlannedRun
from ablation.study.plan_file import extend_plan
from ablation.tracking.experiment import publish_files, publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.run_places import current_artifacts, portable
from ablation.tracking.store import Store
from ablation.tracking.study_folder import study_folder, study_name
from ablation.tracking.study_record import fetch_artifact, find_folders, load_study


def finished(project: Path, seed: int = 0) -> RunFolder:
    """A finished run with detections, copied into the project's store."""
    store, folder = store_in(project), run_folder(project, seed=seed, key=f"{seed + 1}" * 64)
    mirror = Mirror(store, folder, strict=True)
    mirror.start()
    folder.append_metrics(1, {"val/AP": 0.5})
    folder.write_json("detections/val.json", [seed])
    folder.set_state("FINISHED")
    mirror.finish(folder.artifacts())
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two runs, with a plan that declares a margin."""
    project = tmp_path / "project"
    project.mkdir()
    put_store(project)
    folders = [finished(project, seed) for seed in (0, 1)]
    planned = [PlannedRun("bce", seed, f"{seed + 1}" * 64, "c") for seed in (0, 1)]
    plan, _ = extend_plan(project / "runs", "s", planned, Declaration("val/AP", 0.03, 0.9))
    publish_plan(store_in(project), "s", replace(plan, description="why"))
    assert len(folders) == 2
    return project


def as_version_0_1(project: Path) -> None:
    """Absolute folders in the tags, as they were written then."""
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute(f"UPDATE tags SET value = '{project}/' || value WHERE key = 'folder'")


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "0.1.0"])
@pytest.mark.parametrize("how", ["moved", "copied", "linked"])
def test_everything_is_found_where_it_is_now(project: Path, tmp_path: Path, how: str, absolute: bool) -> None:
    before = load_study(store_in(project), "s")
    if absolute:
        as_version_0_1(project)
    there = tmp_path / "deep" / "there"
    there.parent.mkdir()
    if how == "copied":
        shutil.copytree(project, there)
        shutil.rmtree(project / "runs" / "s" / "bce" / next((project / "runs/s/bce").iterdir()).name)
    else:
        project.rename(there)
    if how == "linked":
        project.symlink_to(there)
    listing = sorted(project.rglob("*")) if how == "copied" else []
    store = store_in(there)
    study = load_study(store, "s")
    assert study.missing == () and study.description == "why"
    assert study.declared == before.declared and study.planned == before.planned
    for run in study.runs:
        assert Path(run.folder).is_relative_to(there) and Path(run.folder, "detections/val.json").is_file()
        file = fetch_artifact(store, run.run_id, "detections/val.json")
        assert file is not None and file.is_relative_to(there)
    assert [path.parent.parent.parent for path in find_folders(store, "1" * 20)] == [there / "runs"]

    # Writing: one run stays one run, MLflow's own addresses follow, the old place is left alone.
    for path in sorted((there / "runs").glob("*/*/*")):
        for _ in range(2):
            folder = RunFolder(path)
            Mirror(store, folder, strict=True).finish(folder.artifacts())
    (there / "page.html").write_text("page")
    publish_files(store, "s", [there / "page.html"], "report", {})
    assert [run.run_id for run in load_study(store, "s").runs] == [run.run_id for run in before.runs]
    client = store.client()
    for run in before.runs:
        assert client.get_run(run.run_id).info.artifact_uri.startswith(there.as_uri())
        assert {file.path for file in client.list_artifacts(run.run_id)} == {"config.yaml", "detections"}
    if how == "copied":
        assert sorted(project.rglob("*")) == listing
    elif how == "moved":
        assert not project.exists()


def test_runs_that_an_earlier_sync_doubled_become_one(project: Path) -> None:
    store = store_in(project)
    client = store.client()
    (run, _) = load_study(store, "s").runs
    original = client.get_run(run.run_id)
    tags = {name: value for name, value in original.data.tags.items() if not name.startswith("mlflow.")}
    experiment = original.info.experiment_id
    double = client.create_run(experiment, original.info.start_time, tags | {"folder": "/old/place"})
    client.log_metric(double.info.run_id, "val/AP", 0.5, step=1)
    assert len(load_study(store, "s").runs) == 3
    folder = RunFolder(Path(run.folder))
    Mirror(store, folder, strict=True).finish(folder.artifacts())
    assert len(load_study(store, "s").runs) == 2


def test_what_cannot_be_found_is_listed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(project / "mlflow.db", alone)
    shutil.rmtree(project)
    study = load_study(store_in(alone), "s")
    assert len(study.missing) == 3 and "plan.json" in study.missing[0]
    assert all("out=DIR" in line for line in study.missing)
    assert study.declared == () and [run.folder for run in study.runs] == ["", ""]
    assert not project.exists()


def test_runs_elsewhere_are_found_through_out(project: Path, tmp_path: Path) -> None:
    (project / "runs").rename(tmp_path / "results")
    (tmp_path / "results" / "s").rename(tmp_path / "results" / "renamed")
    shutil.rmtree(project / "mlartifacts")
    study = load_study(store_in(project), "s", tmp_path / "results")
    assert {Path(run.folder).parents[1].name for run in study.runs} == {"renamed"}
    (line,) = study.missing
    assert "plan.json" in line


def test_the_plan_of_another_project_is_not_taken(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / "runs")
    other = tmp_path / "other"
    planned = [PlannedRun("bce", 0, "f" * 64, "c")]
    extend_plan(other / "runs", "s", planned, Declaration("x/y", 1, 0.5))
    monkeypatch.chdir(other)
    study = load_study(store_in(project), "s", Path("runs"))
    assert [entry.margin for entry in study.declared] == [0.03]


def test_a_store_that_is_gone_is_made_from_the_runs(project: Path) -> None:
    (project / "mlflow.db").unlink()
    with pytest.raises(UsageError, match="ablation sync"):
        load_study(store_in(project), "s")


def test_names_with_the_same_letters_have_two_folders_and_old_folders_are_found(tmp_path: Path) -> None:
    assert study_folder(tmp_path, "s") == tmp_path / "s"
    former = tmp_path / "gr-e-1" / "bce" / "seed0-1"
    former.mkdir(parents=True)
    (former / "run.json").write_text('{"study": "größe 1"}')
    assert study_folder(tmp_path, "größe 1") == tmp_path / "gr-e-1"
    assert study_folder(tmp_path, "grüße 1") == tmp_path / study_name("grüße 1") != tmp_path / "gr-e-1"


def test_addresses() -> None:
    base = Path("/base")
    assert portable("/base/runs/s/a/seed0-1", base) == "runs/s/a/seed0-1"
    assert portable("/base/../other/s", base) == "/other/s"
    assert portable("/base/runs", None) == "/base/runs"
    assert current_artifacts("mlflow-artifacts:/1/r/artifacts", base) is None
    assert current_artifacts("s3://bucket/1/r/artifacts", base) is None
    assert current_artifacts("file:///base/x/s/r/artifacts", base) == Path("/base/x/s/r/artifacts")
    # Where the user put it, and where MLflow's default place was.
    assert current_artifacts("file:///mnt/art/s/r/artifacts", base) == Path("/mnt/art/s/r/artifacts")
    assert (
        current_artifacts("file:///gone/mlartifacts/s/r/artifacts", base)
        == base / "mlartifacts/s/r/artifacts"
    )
    assert Store.of("sqlite:///x.db", None).base == Path.cwd()
