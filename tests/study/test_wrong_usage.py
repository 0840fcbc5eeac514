"""Wrong usage gets one line, and starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import TINY, ablation, error_line, in_this_process, run_folders
from helpers.shared import put_store

from ablation.records import PlannedRun
from ablation.study.plan_file import extend_plan


def test_the_process_ends_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    result = ablation(tmp_path, "train", "loss=fokal", check=2)
    assert "loss=fokal: no such file loss/fokal.yaml" in error_line(result)
    assert result.stderr.count("\n") == 1 and result.stdout == "", result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["train", "-m", "sweeps=typo"],
            2,
            "sweeps=typo: no such file sweeps/typo.yaml; there are: alpha_gamma",
        ),
        (["train", "sweeps=demo"], 2, "add -m"),
        (["train", "loss=fokal"], 2, "did you mean focal"),
        (["train", "los=focal"], 2, "los: no such key; did you mean loss"),
        (["train", "loss=focal", "loss.gama=1"], 2, "loss.gama: no such key; did you mean loss.gamma"),
        (["train", "loss=focal", "loss.gamma=-1"], 2, "loss.gamma: found -1.0, must be >= 0"),
        (["train", "loss=focal", "loss.gamma=x"], 2, "loss.gamma"),
        (["train", "loss=focal", "loss.alpha=2"], 2, "loss.alpha: found 2.0, must be in [0, 1]"),
        (
            ["train", "train.epochs=abc"],
            2,
            "train.epochs=abc: Value 'abc' of type 'str' could not be converted",
        ),
        (["train", "loss.gamma="], 2, "loss.gamma"),
        (["train", "loss=bce", "loss.gamma=2"], 2, "loss.gamma: the loss is bce"),
        (["train", "data=voc", "data.root=nowhere"], 2, "nowhere"),
        (["train", "data.train_images=4", "data.val_images=4", "train.batch_size=16"], 2, "train.batch_size"),
        (["train", "loss=focal", "loss.gamma=0,-1", "-m"], 2, "loss.gamma: found -1.0"),
        (["report", "study=nothing"], 2, "mlflow.db"),
        (["report"], 2, "study=... is missing"),
        (["report", "studdy=x"], 2, "studdy=x"),
        (["repport"], 2, "repport: no such command"),
        (["sync", "out=nowhere"], 2, "nowhere"),
    ],
)
def test_wrong_usage_gets_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = in_this_process(tmp_path, *arguments, check=code)
    assert message in error_line(result)
    assert result.stderr.count("\n") == 1, result.stderr
    assert run_folders(tmp_path) == []


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "study"])
def test_a_place_that_cannot_be_written_is_one_line_and_nothing_of_hydra_before_it(
    tmp_path: Path, mode: list[str]
) -> None:
    (tmp_path / "file").touch()
    result = in_this_process(tmp_path, "train", *mode, *TINY, "tracking=none", "out=file", check=1)
    assert "file/default" in error_line(result)
    assert "Error executing job" not in result.stderr + result.stdout


def test_a_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    result = in_this_process(tmp_path, "report", "study=s", "uri=http://127.0.0.1:9", check=1)
    assert "MLflow cannot use this store" in error_line(result)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["report"], ["status"], ["confirm"], ["confirm", "seeds=5-7"]])
def test_a_command_without_a_study_names_those_there_are(tmp_path: Path, command: list[str]) -> None:
    extend_plan(tmp_path / "runs", "a", [PlannedRun("bce", 0, "k", "c")])
    line = error_line(in_this_process(tmp_path, *command, check=2))
    assert "study=... is missing; there are: study=a" in line


@pytest.mark.parametrize(
    "command",
    [
        ["report", "study=x"],
        ["report", "study=x", "metric=val/AP50"],
        ["confirm", "study=x", "seeds=5-7"],
        ["status", "study=x"],
        ["studies"],
        ["sync"],
        ["import", "study=x", "table=none.csv"],
        ["plan", "data=voc", "data.root=none"],
        ["train", "data=voc", "data.root=none"],
        ["check", "data=voc", "data.root=none"],
    ],
    ids=" ".join,
)
def test_a_command_that_fails_makes_no_folder(tmp_path: Path, command: list[str]) -> None:
    put_store(tmp_path)
    before = sorted(tmp_path.iterdir())
    in_this_process(tmp_path, *command, "out=nowhere", check=None)
    assert sorted(tmp_path.iterdir()) == before
