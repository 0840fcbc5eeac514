"""Placeholders of a command: their values, words that are left out, and what is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablation.config import RunConfig, TrainerConfig, typed
from ablation.errors import UsageError
from ablation.study.app import composed
from ablation.training.command.placeholders import Placeholders

FOLDER = Path("/runs/x")


@pytest.fixture(scope="module")
def base() -> dict[str, RunConfig]:
    return {
        "bce": typed(composed(["loss=bce"])),
        "focal": typed(composed(["loss=focal", "loss.alpha=null", "seed=4"])),
    }


def placeholders(config: RunConfig, **settings: Any) -> Placeholders:
    return Placeholders(replace(config, trainer=TrainerConfig(settings=settings), arm="an arm"), FOLDER)


def test_values_are_those_of_the_configuration(base: dict[str, RunConfig]) -> None:
    given = placeholders(base["focal"], width=3, flip=True)
    text = "{seed} {loss.name} {loss.gamma} {train.size_px} {settings.width} {settings.flip} {run.folder}/a"
    assert given.filled("k", text) == "4 focal 2.0 96 3 true /runs/x/a"
    assert given.filled("k", "{{seed}} of {{{seed}}}") == "{seed} of {4}"


def test_a_list_is_left_out_where_its_placeholder_has_no_value(base: dict[str, RunConfig]) -> None:
    command = ["run", 1, ["--alpha", "{loss.alpha}"], ["--gamma", "{loss.gamma}"], ["--seed", "{seed}"]]
    assert placeholders(base["bce"]).words("k", command) == ["run", "1", "--seed", "0"]
    assert placeholders(base["focal"]).words("k", command) == ["run", "1", "--gamma", "2.0", "--seed", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{loss.gama}", "k: unknown placeholder {loss.gama}; did you mean {loss.gamma}"),
        ("{epochs}", "k: unknown placeholder {epochs}; did you mean {train.epochs}"),
        ("{sed}", "k: unknown placeholder {sed}; did you mean {seed}"),
        ("{zzzzzz}", "k: unknown placeholder {zzzzzz}; there are {seed}, {run.folder}, {settings.X} and"),
        ("{}", "k: unknown placeholder {}; there are {seed}"),
        ("a } b", "k: a single } in 'a } b'; write }}"),
        ("{tracking.uri}", "k: unknown placeholder {tracking.uri}"),
        ("{loss.alpha}", "k: {loss.alpha} has no value in arm 'an arm'; a list of words"),
    ],
)
def test_what_is_refused_in_one_line(text: str, message: str, base: dict[str, RunConfig]) -> None:
    with pytest.raises(UsageError) as error:
        placeholders(base["focal"]).with_value("k", text)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_where_a_run_lies_is_not_among_what_decides_its_result(base: dict[str, RunConfig]) -> None:
    words = ["{seed}", ["{run.folder}", "{train.device}"], {"A": "{train.threads}{settings.a}{loss.gamma}"}]
    used = placeholders(base["focal"], a=7).used(words)
    assert used == {"seed": 4, "settings.a": 7, "loss.gamma": 2.0}
