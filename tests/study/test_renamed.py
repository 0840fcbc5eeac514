"""A study keeps the name that its runs have: every command says so of a folder that was renamed or copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.command import TINY, error_line, in_this_process
from helpers.store import run_folder, store_in

from ablation.commands.sync import replay
from ablation.errors import UsageError
from ablation.records import PlannedRun
from ablation.study.plan_file import extend_plan
from ablation.study.study_list import list_studies
from ablation.tracking.study_record import study_names

KEY = "k" * 64


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Study s of one finished run, in the store."""
    folder = run_folder(tmp_path, key=KEY)
    folder.append_metrics(1, {"val/AP": 0.5})
    folder.set_state("FINISHED")
    extend_plan(tmp_path / "runs", "s", [PlannedRun("bce", 0, KEY, "ablation train")])
    replay(tmp_path / "runs", store_in(tmp_path))
    return tmp_path


COMMANDS = {
    "report": ["report"],
    "status": ["status"],
    "confirm": ["confirm", "seeds=5-7"],
    "launch": ["train", *TINY],
    "plan": ["plan", *TINY],
    "sync": ["sync"],
}


@pytest.mark.parametrize("study", ["s", "new"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_renamed_folder(project: Path, command: str, study: str) -> None:
    """Else sync enters the runs under the old name, and a launch trains them again."""
    (project / "runs" / "s").rename(project / "runs" / "new")
    before = sorted(project.rglob("*"))
    arguments = COMMANDS[command] + ([] if command == "sync" else [f"study={study}"])
    line = error_line(in_this_process(project, *arguments, check=2))
    assert "runs/new/ holds runs of study s" in line
    assert "rename it back to runs/s/ and give study=s" in line
    assert sorted(project.rglob("*")) == before and study_names(store_in(project)) == ["s"]


def test_a_renamed_folder_without_its_plan(project: Path) -> None:
    (project / "runs" / "s" / "plan.json").unlink()
    (project / "runs" / "s").rename(project / "runs" / "new")
    with pytest.raises(UsageError, match=r"holds runs of study s"):
        extend_plan(project / "runs", "s", [PlannedRun("bce", 5, KEY, "c")])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_copy_is_refused_and_the_study_itself_is_not(project: Path, command: str) -> None:
    shutil.copytree(project / "runs" / "s", project / "runs" / "copy")
    arguments = COMMANDS[command] + ([] if command == "sync" else ["study=copy"])
    line = error_line(in_this_process(project, *arguments, check=2))
    assert "that study's folder is runs/s/: move the copy out of runs/, or give study=s" in line
    assert "1 of 1 done" in in_this_process(project, "status", "study=s").stdout


def test_the_list_of_studies_says_it_of_that_folder_alone(project: Path) -> None:
    shutil.copytree(project / "runs" / "s", project / "runs" / "copy")
    problems = {Path(study.folder).name: study.problem for study in list_studies(project / "runs")}
    assert problems["s"] == "" and "move the copy" in problems["copy"]


def test_a_folder_that_is_renamed_back_is_as_before(project: Path) -> None:
    (project / "runs" / "s").rename(project / "runs" / "new")
    (project / "runs" / "new").rename(project / "runs" / "s")
    replay(project / "runs", store_in(project))
    assert "1 of 1 done" in in_this_process(project, "status", "study=s").stdout


def test_no_study_is_named_for_folders_that_are_not_its_own(project: Path) -> None:
    """`report study=new` advised `ablation sync`, which entered the runs under the old name."""
    other = store_in(project / "elsewhere")
    other.prepare()
    (project / "runs" / "s").rename(project / "runs" / "new")
    address = f"uri={other.uri}"
    line = error_line(in_this_process(project, "report", "study=third", address, check=2))
    assert "ablation sync" not in line and "no such study" in line
