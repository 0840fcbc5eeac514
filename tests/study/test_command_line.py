"""What a command line may hold, and what a person is told where it may not."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.command import TINY, ablation, run_folders
from hydra.core.override_parser.overrides_parser import OverridesParser

from ablation.config import typed
from ablation.errors import UsageError
from ablation.study.app import composed, study_runs
from ablation.study.command_line import prepared, quoted
from ablation.study.whole_numbers import whole_numbers


def values(*overrides: str) -> Any:
    return typed(composed(list(overrides)))


def refusal(*overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        values(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/home/me", "/home/my files (1)", "/home/größe, b"):
        monkeypatch.setenv("HOME", home)
        assert values("data=voc", "data.root=~/x y").data.root == f"{home}/x y"
        assert values("out=~").out == home


TEXTS = [
    "a(b)",
    "a,b",
    "é",
    "a=b",
    "it's",
    'say "hi"',
    "a[b",
    "x{y",
    "a$b`c",
    "back\\slash",
    "end\\",
    "\\'",
    "50%!",
    "a: b",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_quoting_that_is_shown_works(text: str) -> None:
    """As a shell would pass it on, Hydra reads the text itself."""
    (argument,) = shlex.split(quoted("description", text))
    assert OverridesParser.create().parse_override(argument).value() == text
    try:
        described = values(f"description={text}").description
    except UsageError as error:
        assert quoted("description", text) in str(error)
    else:
        assert described == text


@pytest.mark.parametrize("text", ["007", "1e3", "1_000", "true", "0x10", "2024-01-01", "inf", "1.50"])
def test_a_name_stays_as_it_is_written(text: str) -> None:
    config = values(f"study={text}", f"description={text}")
    assert (config.study, config.description) == (text, text)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss.gamma=2"], ["loss is bce", "loss=focal"]),
        (["data.root=/x"], ["data is shapes", "data=voc"]),
        (["loss.gamma=0,1,2"], ["add -m", "train -m loss.gamma=0,1,2"]),
        (["loss=focal", "loss.gamma=0,1"], ["add -m"]),
        (["description=a, b"], ["description='a, b'"]),
        (["seeds=0,1"], ["add -m"]),
        (["seed=0-4"], ["add -m"]),
        (["seed=0,1"], ["add -m"]),
        (["train.epohcs=3"], ["did you mean train.epochs?"]),
        (["trian.epochs=3"], ["did you mean train.epochs?"]),
        (["epochs=3"], ["did you mean train.epochs?"]),
        (["train.lr=1"], ["did you mean optim.lr?"]),
        (["loss=focall"], ["did you mean focal?"]),
        (["loss=huber"], ["there are: ", "quality_focal"]),
        (["loss=focal", "loss.gama=2"], ["did you mean loss.gamma?"]),
        (["lss=focal"], ["did you mean loss?"]),
        (["foo"], ["KEY=VALUE"]),
        (["-x"], ["no such option"]),
        (["größe=1"], ["not the name of a setting"]),
        (["data=voc", "data.root=/a(b)"], ["\"data.root='/a(b)'\""]),
    ],
)
def test_a_refusal_says_what_would_be_right(overrides: list[str], words: list[str]) -> None:
    line = refusal(*overrides)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("argument", "ready"),
    [
        ("seed=0-4", "seed=0,1,2,3,4"),
        ("seed=0-1,7", "seed=0,1,7"),
        ("seeds=0,1", "seeds=[0,1]"),
        ("seeds=0-2", "seeds=[0,1,2]"),
        ("seeds=[0-2,5]", "seeds=[0,1,2,5]"),
        ("seeds=4", "seeds=[4]"),
        ("seeds=null", "seeds=null"),
        ("seed=-1", "seed=-1"),
        ("seed=range(3)", "seed=range(3)"),
        ("~data.x", "~data.x"),
    ],
)
def test_ranges_of_seeds(argument: str, ready: str) -> None:
    assert prepared([argument], multirun=True) == [ready]


def test_seeds_of_a_study() -> None:
    runs, _ = study_runs([*TINY, "seed=0-2"])
    assert [run.config.seed for run in runs] == [0, 1, 2]
    runs, _ = study_runs([*TINY, "seeds=3,5", "loss=bce,focal"])
    assert [run.config.seed for run in runs] == [3, 5, 3, 5]


@pytest.mark.parametrize("text", ["", "a", "5-3", "1-", "-3", "1,,2", "0-1000000000000", "1.5", "9" * 30])
def test_other_texts_are_no_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError, match=r"seeds="):
        whole_numbers("seeds", text)


def test_a_folder_with_a_difficult_name(tmp_path: Path) -> None:
    work = tmp_path / "it's, (größe) [1]"
    work.mkdir()
    ablation(work, "train", *TINY, "train.epochs=1", "tracking=none")
    assert len(run_folders(work)) == 1


SECRET = "s3cr3t-t0ken-91f2"


@pytest.mark.parametrize("name", ["description", "study", "arm", "out", "data.cache_dir", "tracking.uri"])
def test_a_setting_may_not_be_taken_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    calls = ["${oc.env:TOKEN}", "a ${oc.decode:${oc.env:TOKEN}} b", "${oc.env:NONE,${oc.env:TOKEN}}"]
    for call in calls:
        line = refusal(f"{name}='{call}'")
        assert line.startswith(f"{name}: ") and SECRET not in line
    line = refusal("study=oc.env", f"{name}='${{${{study}}:TOKEN}}'") if name != "study" else ""
    assert SECRET not in line


def test_references_to_other_settings_stay() -> None:
    assert values("description=${study}-${train.size_px}", "study=x").description == "x-96"
