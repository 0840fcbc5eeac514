"""One configuration in a thousand spellings has one key; a change of any value has another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.fault_trials import ROOT, Row, random

from ablation.config import RunConfig, typed
from ablation.study.app import composed
from ablation.study.identity import run_key

FIXED = ["loss=focal", "model=yolov4_small", "train.precision=fp32"]
# Every value is the one of conf/, in as many spellings as a person might use.
SPELLINGS: dict[str, list[str]] = {
    "loss.gamma": ["2", "2.0", "2.", "2e0", "0.2e1", "+2.00", "20e-1", "2.000"],
    "loss.alpha": ["0.25", ".25", "2.5e-1", "0.250", "25e-2", "+0.25"],
    "seed": ["3", "03", "+3"],
    "model.width": ["0.25", ".25", "25e-2", "0.2500"],
    "optim.momentum": ["0.9", ".9", "9e-1", "0.90"],
    "optim.clip_norm": ["10", "10.0", "1e1", "+10.", "100e-1"],
    "criterion.balance": ["[1,1,1]", "[1.0, 1.0, 1.0]", "[1e0,1.,+1]", "[ 1 , 1.00 , 1 ]"],
    "train.deterministic": ["true", "True", "TRUE"],
    "train.multi_scale": ["null", "NULL", "Null"],
    "model.weights": ["null", "Null"],
}
# What cannot change a result, whatever it is.
FREE: dict[str, list[str]] = {
    "train.workers": ["0", "1", "4"],
    "train.threads": ["null", "1", "2"],
    "train.device": ["cpu", "auto"],
    "train.checkpoint_every": ["1", "3"],
    "train.checkpoint_share": ["0.02", "1"],
    "train.stop_after": ["null", "1"],
    "tracking": ["none", "sqlite"],
    "out": ["runs", "'else where'"],
    "study": ["default", "'another study'"],
    "arm": ["null", "x"],
    "description": ["''", "'because: why'"],
    "analysis.margin": ["0.01", "0.5"],
}


def spelled(generator: np.random.Generator) -> list[str]:
    """The configuration, in an order and in spellings by chance; what is a default may be left out."""
    words = [f"{key}={generator.choice(ways)}" for key, ways in SPELLINGS.items()
             if key not in STATED or generator.random() < 0.6]  # fmt: skip
    words += [f"{key}={generator.choice(ways)}" for key, ways in FREE.items() if generator.random() < 0.3]
    words += FIXED
    return [str(word) for word in generator.permutation(words)]


def key_of(words: list[str]) -> str:
    return run_key(typed(composed(words)), "data")


# These have the value of conf/ anyway; found in test_each_default_is_what_is_spelled.
STATED = ("loss.gamma", "loss.alpha", "criterion.balance", "train.deterministic", "train.multi_scale",
          "model.weights")  # fmt: skip


def test_what_may_be_left_out_is_a_default() -> None:
    stated = [f"{key}={SPELLINGS[key][0]}" for key in STATED]
    assert key_of([*FIXED, *stated]) == key_of(FIXED)


@pytest.mark.parametrize(
    "trials", [pytest.param(4, id="short"), pytest.param(1000, id="full", marks=pytest.mark.fault)]
)
def test_spelled_in_many_ways(trials: int, record_property: object) -> None:
    """One key for all of them."""
    row, generator = Row("the same configuration spelled another way", record_property), random("spelling")
    plain = key_of([*FIXED, *(f"{key}={ways[0]}" for key, ways in SPELLINGS.items())])
    seen = set()
    for _ in range(trials):
        words = spelled(generator)
        seen.add(tuple(words))
        with row.trial(" ".join(words)):
            assert key_of(words) == plain
    assert len(seen) == trials
    assert row.end(trials) == []


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.fault
@pytest.mark.parametrize(
    "group", ["loss", "model", "data", "criterion", "assigner", "augment", "optim", "train"]
)
def test_any_field_or_default_edited(group: str, record_property: object) -> None:
    """Every field of every option of the group, edited in place: another key, unless it is declared free."""
    row = Row(f"any field or default edited: {group}", record_property)
    keys: dict[str, str] = {}
    for option in options(group):
        needed = [f"{group}={option}", "train.precision=fp32"]
        needed += ["data.root=somewhere"] if group == "data" and option != "shapes" else []
        base = typed(composed(needed))
        reference = run_key(base, "data")
        for name, owner, field in fields(getattr(base, group), group):
            with row.trial(f"{group}={option}: {name}"):
                former = getattr(owner, field.name)
                object.__setattr__(owner, field.name, another(former))
                edited = run_key(base, "data")
                object.__setattr__(owner, field.name, former)
                assert (edited != reference) == field.metadata.get("identity", True), "the key"
                assert run_key(base, "data") == reference
                if edited != reference:
                    place = f"{option}: {name}"
                    assert keys.setdefault(edited, place) == place, f"the same key as {keys[edited]}"
    assert row.end(row.total) == []
    assert row.total > 0


def test_any_field_of_the_run_itself_edited() -> None:
    base = typed(composed(FIXED))
    for field in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(getattr(base, field.name)):
            continue
        changed = dataclasses.replace(base, **{field.name: another(getattr(base, field.name), field.name)})
        differs = run_key(changed, "data") != run_key(base, "data")
        assert differs == field.metadata.get("identity", True), field.name


def fields(owner: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if dataclasses.is_dataclass(value) and field.metadata.get("identity", True):
            yield from fields(value, f"{path}.{field.name}")
        elif not dataclasses.is_dataclass(value):
            yield f"{path}.{field.name}", owner, field


def another(value: Any, name: str = "") -> Any:
    """A value of the same kind that differs as little as it can."""
    if name == "retry":
        return "failed"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return float(np.nextafter(value, np.inf))
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "another": 1.0}
    if isinstance(value, list | tuple):
        return [*value, 1.0]
    return "something"
