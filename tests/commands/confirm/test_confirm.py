"""Confirming a choice: fresh seeds, the test split once, and no second look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import ablation, error_line, in_this_process, run_folders
from helpers.shared import copy_of

from ablation.commands.confirm.choice import Choice, arguments, fix_choice
from ablation.errors import UsageError
from ablation.records import PlannedRun
from ablation.study.relaunch import overrides_of
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

CHOICE = Choice("s", ("f", "b"), (10, 11), "val/AP", 0)


def settings(params: dict[str, str]) -> dict[str, str]:
    """All that decides a result, but for the seed."""
    return {key: value for key, value in params.items() if key not in ("seed", "study", "description")}


@pytest.fixture(scope="module")
def confirmed(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of BCE and two focal arms, confirmed."""
    folder = copy_of(finished_study, tmp_path_factory.mktemp("confirm"))
    result = ablation(folder, "confirm", "study=little", "seeds=10-11")
    assert "on fresh seeds" in result.stdout and "test/AP" in result.stdout
    return folder


def test_two_finalists_on_the_fresh_seeds_and_nothing_else_is_trained(confirmed: Path) -> None:
    store = Store.of(f"sqlite:///{confirmed / 'mlflow.db'}", None)
    runs = load_study(store, "little_confirm").runs
    assert sorted(run.seed for run in runs) == [10, 10, 11, 11]
    arms = {run.arm for run in runs}
    assert len(arms) == 2 and sum(arm.startswith("focal") for arm in arms) == 1
    old = {run.arm: run.params for run in load_study(store, "little").runs}
    for run in runs:
        assert settings(run.params) == settings(old[run.arm])
        assert 0 <= run.metrics["test/AP"] <= 1, "the test split's value is in MLflow as well"


def test_the_test_split_is_read_for_the_confirmation_alone(confirmed: Path) -> None:
    for run in run_folders(confirmed):
        text = (run / "metrics.jsonl").read_text()
        fresh = "little_confirm" in run.parts
        assert text.count('"test/AP"') == (1 if fresh else 0)
        assert (run / "detections" / "test.json").exists() == fresh
    found = json.loads((confirmed / "runs" / "little_confirm" / "confirmation.json").read_text())
    assert found["test"]["pairs"] == found["val"]["pairs"] == 2
    assert found["test"]["verdict"] == "inconclusive", "two pairs decide nothing"


def test_confirming_again_trains_nothing_and_says_the_same(confirmed: Path) -> None:
    path = confirmed / "runs" / "little_confirm" / "confirmation.json"
    before, text = (
        path.read_text(),
        [run.joinpath("metrics.jsonl").read_text() for run in run_folders(confirmed)],
    )
    ablation(confirmed, "confirm", "study=little", "seeds=10,11")
    assert path.read_text() == before
    assert [run.joinpath("metrics.jsonl").read_text() for run in run_folders(confirmed)] == text


def test_a_second_look_and_stale_seeds_are_refused(confirmed: Path) -> None:
    again = in_this_process(confirmed, "confirm", "study=little", "seeds=12,13", check=2)
    assert "was fixed before" in error_line(again) and "seeds=10,11" in error_line(again)
    stale = in_this_process(confirmed, "confirm", "study=little", "seeds=1,12", check=2)
    assert "seeds: 1 took part in the choice" in error_line(stale)
    word = in_this_process(confirmed, "confirm", "study=little", "seeds=many", check=2)
    assert "seeds=many: must be whole numbers" in error_line(word)


def test_a_choice_is_written_before_and_a_single_seed_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two different seeds"):
        fix_choice(tmp_path, "s", ("f", "b"), [4], "val/AP", set())
    first = fix_choice(tmp_path, "s", ("f", "b"), [4, 5], "val/AP", {0, 1})
    assert fix_choice(tmp_path, "s", ("f", "b"), [4, 5], "val/AP", {0, 1}) == first
    with pytest.raises(UsageError, match="chosen by it"):
        fix_choice(tmp_path, "s", ("g", "b"), [4, 5], "val/AP", {0, 1})


def test_a_runs_command_becomes_an_arm_of_the_confirmation() -> None:
    command = "ablation train sweeps=x 'arms=[{loss: bce}]' study=s seed=3 loss=focal loss.gamma=2 arm=f"
    focal = PlannedRun("f", 3, "k1", command)
    bce = PlannedRun("b", 3, "k2", "ablation train sweeps=x loss=bce loss.pos_weight=2 seed=3 arm=b")
    assert overrides_of(focal) == ["sweeps=x", "loss=focal", "loss.gamma=2"]
    words = arguments(CHOICE, [focal, bce], Path("runs"), ["train.device=cpu"])
    assert words[:2] == ["-m", "sweeps=x"] and words[-1] == "train.device=cpu"
    assert "arms=[{arm: f, loss: focal, loss.gamma: 2},{arm: b, loss: bce, loss.pos_weight: 2}]" in words
    assert "seeds=[10,11]" in words and "study=s_confirm" in words and "analysis.metric=test/AP" in words
