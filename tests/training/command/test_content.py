"""What a trainer's folder and data are by content: what changes a run's key and what does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ablation.errors import DataError, UsageError
from ablation.training.command.content import code_version, data_fingerprint


def git(folder: Path, *words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *author, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "code" / "trainer"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("a = 1\n")
    (folder.parent / "other.py").write_text("b = 1\n")
    git(tmp_path, "init", "-q", "code")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "first")
    return folder


def sha(folder: Path, *patterns: str) -> str:
    return code_version(folder, patterns)["sha256"]


def test_git_the_tree_of_the_folder_and_what_differs_from_it(repository: Path) -> None:
    before = code_version(repository, [])
    assert before["git_dirty"] == "false" and len(before["git_commit"]) == 40
    (repository.parent / "other.py").write_text("b = 2\n")  # outside the folder
    git(repository.parent, "commit", "-qam", "second")
    assert sha(repository) == before["sha256"]
    (repository / "train.py").write_text("a = 2\n")
    changed = code_version(repository, [])
    assert changed["sha256"] != before["sha256"] and changed["git_dirty"] == "true"
    (repository / "train.py").write_text("a = 1\n")
    assert sha(repository) == before["sha256"]
    (repository / "output.txt").write_text("what a training leaves")
    assert sha(repository) == before["sha256"]
    assert sha(repository, "*.txt") not in (before["sha256"], sha(repository, "*.py"))


def test_a_file_outside_git_is_named_in_a_warning(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    (repository / "extra.py").write_text("")
    sha(repository)
    assert "1 Python file is" in caplog.text and "extra.py" in caplog.text and "trainer.files" in caplog.text


def test_without_git_the_named_files_count_by_content(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("a")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "net.py").write_text("b")
    before = sha(tmp_path, "*.py", "deep/*.py")
    (tmp_path / "notes.txt").write_text("c")
    assert sha(tmp_path, "*.py", "deep/*.py") == before != sha(tmp_path, "*.py")
    (tmp_path / "deep" / "net.py").write_text("bb")
    assert sha(tmp_path, "*.py", "deep/*.py") != before


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "git has no committed content of"),
        (["*.pyx"], "names no file"),
        (["/etc/*"], "is no pattern below the folder"),
    ],
)
def test_a_folder_without_content_is_refused(patterns: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        code_version(tmp_path, patterns)
    with pytest.raises(UsageError, match="is no folder"):
        code_version(tmp_path / "nowhere", patterns)


def test_data_are_their_content_and_not_their_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images" / "1.png").write_text("pixels")
        (tmp_path / name / "train.json").write_text("{}")
    first, second = ([f"{name}/train.json", f"{name}/images"] for name in ("a", "b"))
    assert data_fingerprint(tmp_path, first) == data_fingerprint(tmp_path, second)
    (tmp_path / "b" / "images" / "1.png").write_text("other pixels")
    assert data_fingerprint(tmp_path, first) != data_fingerprint(tmp_path, second)
    with pytest.raises(DataError, match="nowhere"):
        data_fingerprint(tmp_path, ["nowhere.json"])
