"""A study has one data set: other data are refused at launch, or replace its runs when that is asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.command import TINY, ablation, error_line, in_this_process, run_folders

from ablation.errors import AblationError, StoreError, UsageError
from ablation.files import write_json
from ablation.records import Plan, PlannedRun, StudyData
from ablation.study.app import study_runs
from ablation.study.execute import announce, execute
from ablation.study.plan_file import extend_plan, plan_file
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan
from ablation.tracking.study_record import load_study

A = StudyData("a" * 64, "data.root=/a", 24, 8)
B = StudyData("b" * 64, "data.root=/b", 30, 8)


def planned(arm: str, seed: int, data: StudyData) -> PlannedRun:
    return PlannedRun(arm, seed, f"{arm}{seed}{data.fingerprint}", "ablation train")


def trained(out: Path, run: PlannedRun, data: StudyData, state: str = "FINISHED") -> RunFolder:
    """A run's folder as a training on `data` leaves it."""
    folder = RunFolder.of(out, "s", run.arm, run.seed, run.key)
    profile = {"train_images": data.train_images, "val_images": data.val_images}
    root = data.source.removeprefix("data.root=")
    facts = {"fingerprint": data.fingerprint, "data": {"name": "voc", "root": root}, "data_profile": profile}
    folder.write_json("run.json", facts | vars(run) | {"study": "s"})
    folder.set_state(state)
    return folder


def study_on_a(out: Path) -> list[PlannedRun]:
    """Two finished runs, one that was interrupted, and one that never started."""
    runs = [planned(arm, seed, A) for arm in ("bce", "focal") for seed in (0, 1)]
    extend_plan(out, "s", runs, None, A)
    for run, state in zip(runs, ("FINISHED", "DIVERGED", "KILLED"), strict=False):
        trained(out, run, A, state)
    return runs


def test_other_data_are_refused_and_the_plan_stays(tmp_path: Path) -> None:
    study_on_a(tmp_path)
    before = plan_file(tmp_path, "s").read_bytes()
    with pytest.raises(UsageError) as refused:
        extend_plan(tmp_path, "s", [planned("bce", 2, B)], None, B)
    message = str(refused.value)
    assert (
        "2 finished and 1 unfinished runs" in message and "study=s_2" in message and "replace=true" in message
    )
    for data in (A, B):
        assert data.source in message and data.fingerprint[:8] in message
        assert f"{data.train_images} train" in message
    assert plan_file(tmp_path, "s").read_bytes() == before


def test_replaced_data_leave_the_plan_and_come_back_when_asked(tmp_path: Path) -> None:
    old = study_on_a(tmp_path)
    plan, replaced = extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B, replace_data=True)
    assert replaced is not None and (replaced.finished, len(replaced.runs)) == (2, 3)
    assert "aaaaaaaa -> bbbbbbbb" in replaced.warning(B) and "focal seed 0" in replaced.warning(B)
    assert plan.runs == [planned("bce", 0, B)] and plan.data == B
    assert plan.left_out == sorted(run.key for run in old)
    trained(tmp_path, plan.runs[0], B)
    plan, _ = extend_plan(tmp_path, "s", old, None, A, replace_data=True)
    assert plan.runs == old and plan.left_out == [planned("bce", 0, B).key]
    assert read_plan(plan_file(tmp_path, "s")) == plan


def test_the_same_data_in_another_place_join_the_study(tmp_path: Path) -> None:
    old = study_on_a(tmp_path)
    moved = dataclasses.replace(A, source="data.root=/elsewhere")
    plan, replaced = extend_plan(tmp_path, "s", [planned("bce", 2, A)], None, moved)
    assert replaced is None and len(plan.runs) == len(old) + 1


def test_a_plan_whose_runs_never_started_gives_way(tmp_path: Path) -> None:
    extend_plan(tmp_path, "s", [planned("bce", 0, A), planned("bce", 1, A)], None, A)
    plan, replaced = extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B)
    assert replaced is None and plan.runs == [planned("bce", 0, B)]


def test_a_plan_of_an_older_version_is_judged_by_its_runs(tmp_path: Path) -> None:
    old = study_on_a(tmp_path)
    path = plan_file(tmp_path, "s")
    content = json.loads(path.read_text())
    del content["data"]
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="2 finished"):
        extend_plan(tmp_path, "s", [planned("bce", 2, B)], None, B)
    plan, _ = extend_plan(tmp_path, "s", [planned("bce", 2, B)], None, B, replace_data=True)
    assert plan.runs == [planned("bce", 2, B)] and len(plan.left_out) == len(old)


@pytest.mark.parametrize("later", [[], [planned("new", 9, A)]], ids=["no plan", "a plan of nothing started"])
def test_without_its_plan_a_study_keeps_the_data_of_its_runs(tmp_path: Path, later: list[PlannedRun]) -> None:
    """plan.json was deleted: the runs' own records say what they were made from."""
    old = study_on_a(tmp_path)
    path = plan_file(tmp_path, "s")
    path.unlink()
    if later:
        extend_plan(tmp_path, "s", later, None, A)
    with pytest.raises(UsageError, match=r"2 finished and 1 unfinished runs in it are of other data: .*=/a"):
        extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B)
    plan, replaced = extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B, replace_data=True)
    assert replaced is not None and len(replaced.runs) == 3 and plan.runs == [planned("bce", 0, B)]
    assert plan.left_out == sorted(run.key for run in [*old[:3], *later])
    # They have left: the next launch is as in any study of these data, and with its own data it joins.
    extend_plan(tmp_path, "s", [planned("bce", 1, B)], None, B)
    path.unlink()
    trained(tmp_path, planned("bce", 0, B), B)
    with pytest.raises(UsageError, match="2 finished"):
        extend_plan(tmp_path, "s", [planned("bce", 1, B)], None, B)


def test_one_run_of_other_data_is_one_run(tmp_path: Path) -> None:
    extend_plan(tmp_path, "s", [planned("bce", 0, A)], None, A)
    trained(tmp_path, planned("bce", 0, A), A)
    with pytest.raises(UsageError, match=r"1 finished run in it is of other data.*that run leaves the plan"):
        extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B)
    _, replaced = extend_plan(tmp_path, "s", [planned("bce", 0, B)], None, B, replace_data=True)
    assert replaced is not None
    assert "1 finished run is of" in replaced.warning(B)
    assert "leaves the plan; its folder stays" in replaced.warning(B)


@pytest.mark.parametrize(
    "content",
    [
        *("[" * 100_000, "[]", "{}", '{"runs": 3}', '{"runs": [3]}', '{"runs": [{"arm": "bce"}]}', "\xff"),
        '{"runs": [{"arm": ["x"], "seed": 0, "key": "k", "command": "c"}]}',
        '{"runs": [{"arm": "x", "seed": "0", "key": "k", "command": "c"}]}',
        '{"runs": [], "declared": [{"metric": "val/AP", "margin": "x", "level": 0.9}]}',
        '{"runs": [], "data": {"fingerprint": "a"}}',
    ],
)
def test_a_damaged_plan_is_named(tmp_path: Path, content: str) -> None:
    path = plan_file(tmp_path, "s")
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=r"plan\.json: not a plan"):
        read_plan(path)


def test_a_plan_survives_writing_and_reading() -> None:
    plan = Plan([planned("bce", 0, A)], [], "why", A, ["k"])
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two runs on generated data."""
    folder = tmp_path_factory.mktemp("finished")
    ablation(folder, "train", "-m", *TINY, "loss=bce,focal", "train.epochs=1", "study=s")
    return folder


OTHER = "data.data_seed=7"


@pytest.mark.parametrize("launch", [["-m", "loss=bce,focal"], ["loss=bce"], ["-m", "seed=0,1", "loss=bce"]])
def test_a_launch_with_other_data_trains_nothing(finished: Path, launch: list[str]) -> None:
    before = plan_file(finished / "runs", "s").read_bytes()
    result = in_this_process(finished, "train", *launch, *TINY, "train.epochs=1", "study=s", OTHER, check=2)
    assert "2 finished runs" in error_line(result)
    assert len(run_folders(finished)) == 2
    assert plan_file(finished / "runs", "s").read_bytes() == before


def test_plan_says_that_a_launch_is_refused(finished: Path) -> None:
    arguments = [*TINY, "loss=bce,focal", "train.epochs=1", "study=s", OTHER]
    refused = in_this_process(finished, "plan", *arguments)
    assert "refused" in refused.stdout and "replace=true" in refused.stdout
    replaced = in_this_process(finished, "plan", *arguments, "replace=true")
    assert "leave the plan" in replaced.stdout and "refused" not in replaced.stdout


def test_one_launch_with_two_data_sets_is_refused(tmp_path: Path) -> None:
    arguments = [*TINY, "data.data_seed=0,7", "study=s"]
    result = in_this_process(tmp_path, "train", "-m", *arguments, check=2)
    assert "a study of its own" in error_line(result)
    assert run_folders(tmp_path) == []


def test_replaced_runs_are_named_and_no_longer_analysed(finished: Path) -> None:
    """Last in this file: it changes the study."""
    arguments = [*TINY, "loss=bce", "train.epochs=1", "study=s", OTHER, "replace=true"]
    result = ablation(finished, "train", *arguments)
    assert "2 finished runs are of other data" in result.stderr and "bce seed 0" in result.stderr
    store = Store.of(f"sqlite:///{finished / 'mlflow.db'}", None)
    record = load_study(store, "s")
    assert sorted(run.state for run in record.runs) == ["FINISHED", "SUPERSEDED", "SUPERSEDED"]
    assert [run.command for run in record.planned if "replace" in run.command] == []


def test_data_that_change_after_the_launch_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may start hours after its study was launched."""
    monkeypatch.chdir(tmp_path)
    runs, _ = study_runs([*TINY, "study=s", "tracking=none"])
    announce(runs, None)
    path = plan_file(tmp_path / "runs", "s")
    write_json(path, dataclasses.replace(read_plan(path), data=A).to_json())
    with pytest.raises(AblationError, match=r"changed after the study was launched.*aaaaaaaa"):
        execute(runs[0], None)
    assert not runs[0].folder.file("run.json").exists()
